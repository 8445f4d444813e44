"""What runs leave in a folder of results: metrics, predictions, settings, logs and times."""
