"""Runs plans and publishes the results, completely or not at all."""
