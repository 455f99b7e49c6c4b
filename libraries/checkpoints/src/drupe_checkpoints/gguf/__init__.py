"""GGUF files as checkpoints: the header, its settings in the form of config.json, tensors by transformers' names."""
