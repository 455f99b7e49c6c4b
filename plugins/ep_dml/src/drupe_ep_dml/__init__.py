"""The execution provider `dml`."""
