"""Adapters in peft's format, merged into a checkpoint's tensors as lazy expressions."""
