"""What every stage needs of the machine: files, checkpoints, signals, processes, devices, random seeds."""
