"""Evidence: compact copies of metrics and predictions that can be committed, and results rebuilt from them."""
