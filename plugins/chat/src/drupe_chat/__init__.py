"""Continues texts and talks with the packages that Drupe makes."""
