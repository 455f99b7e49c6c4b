"""GGUF files as checkpoints: the header, what it says as config.json would, tensors by transformers' names."""
