"""Evaluators for Drupe: how close a package is to its source, and how fast it runs."""
