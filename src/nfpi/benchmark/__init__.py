"""Speed and memory: measured as ratios to named references, counted on fake tensors, and projected to GPUs."""
