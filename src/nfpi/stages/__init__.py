"""Stages: `options` has a class for each, light; the modules beside it do the work."""
