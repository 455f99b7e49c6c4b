"""The runtime onnxruntime: opens ONNX models on a target and runs them."""
