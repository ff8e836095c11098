"""The real Triton server on a machine without a GPU: install, run, stop."""
