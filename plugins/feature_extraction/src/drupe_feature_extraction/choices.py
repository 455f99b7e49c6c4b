"""The poolings that a user can name, and sentence-transformers' names for them."""

from __future__ import annotations

from collections.abc import Mapping

POOLINGS: Mapping[str, str] = {"last": "lasttoken", "mean": "mean", "cls": "cls", "max": "max"}
