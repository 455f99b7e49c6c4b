"""Fixtures: a site with the example plugin acme of the kernel's tests, and a model of its kind."""

from __future__ import annotations

from acme_fixtures import acme, found, site, source

__all__ = ["acme", "found", "site", "source"]
