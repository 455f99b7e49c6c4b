"""ONNX files as sources and packages of Drupe."""
