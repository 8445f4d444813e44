"""Hours and memory of a preset on GPUs, computed from operations that are counted on fake tensors."""
