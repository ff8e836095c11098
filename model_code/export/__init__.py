"""The trained network as TorchScript and ONNX, and pruned."""
