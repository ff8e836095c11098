"""Training: loop, runs, checkpoints, sampling, metrics."""
