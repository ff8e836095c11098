"""The Triton model repository: configuration, sidecar, atomic staging."""
