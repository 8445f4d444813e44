"""System layer of the stages: files, checkpoints, locks, signals, processes, devices and random seeds."""
