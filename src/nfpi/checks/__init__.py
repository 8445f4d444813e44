"""Checks of a device, in about two minutes, before a preset's trainings of many hours are submitted to it."""
