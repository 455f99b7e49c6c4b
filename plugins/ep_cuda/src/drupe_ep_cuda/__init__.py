"""The execution provider `cuda`."""
