"""Two minutes before twenty hours: what a device has to show before a preset's trainings are submitted to it."""
