"""Trying finished packages in a separate process, and measuring packages."""
