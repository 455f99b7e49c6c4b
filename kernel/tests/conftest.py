"""Fixtures: a site with or without the example plugin acme, and a model of its kind."""

from __future__ import annotations

from acme_fixtures import acme, found, site, source

__all__ = ["acme", "found", "site", "source"]
