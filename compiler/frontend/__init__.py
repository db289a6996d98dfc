"""ONNX read: files, opsets, inputs, and the walk that adds one registered rule per node."""
