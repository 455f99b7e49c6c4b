"""Tuning the settings of a package's session on the machine at hand."""
