"""Trials of searches on many machines with Ray: see `plugin`."""
