"""Lazy ONNX decoder graphs from checkpoints, with architectures as data."""
