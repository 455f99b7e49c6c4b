"""onnxruntime for Drupe: opens ONNX models on a target and runs them."""
