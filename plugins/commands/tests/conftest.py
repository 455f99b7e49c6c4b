"""A site with the third party's plugin of the kernel's tests, and a model of its kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from sites import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    return Site(folder)


@pytest.fixture
def acme(site: Site) -> Site:
    """A site with the third party's plugin installed."""
    site.add_acme()
    return site


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "model.txt").write_text("hello")
    return folder
