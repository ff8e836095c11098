"""Export of the trained network to TorchScript and ONNX, and pruning."""
