"""A site with the third party's plugin of the kernel's tests, and a model of its kind."""

from __future__ import annotations

from acme_fixtures import acme, site, source

__all__ = ["acme", "site", "source"]
