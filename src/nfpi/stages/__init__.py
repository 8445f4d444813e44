"""Stages and commands of the CLI: `options` declares their options, the modules beside it do the work."""
