"""Four questions about a device, answered in minutes before trainings of many hours are submitted to it."""
