"""Runtimes of other tools: what packages are compared with."""
