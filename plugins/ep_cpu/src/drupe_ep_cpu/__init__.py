"""The execution provider `cpu`."""
