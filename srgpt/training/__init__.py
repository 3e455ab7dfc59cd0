"""Training with DeepSpeed: recipe (what is trained, and how fast), loop, checkpoints, metrics."""
