"""The kernel's own commands: thin faces over the Python API."""
