"""Checks of a device, in minutes, before a preset's trainings of many hours are submitted to it."""
