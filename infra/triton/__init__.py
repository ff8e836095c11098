"""The real Triton server on a machine without a GPU: installed, run, stopped."""
