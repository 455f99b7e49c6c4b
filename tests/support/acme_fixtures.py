"""Fixtures with acme, the example plugin of the kernel's tests. Conftests import them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sites import Site

if TYPE_CHECKING:
    from drupe.api import Registry


@pytest.fixture
def site(tmp_path: Path) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    return Site(folder)


@pytest.fixture
def acme(site: Site) -> Site:
    """A site with acme installed."""
    site.add_acme()
    return site


@pytest.fixture
def found(acme: Site) -> Iterator[Registry]:
    """The registry of this process, where acme is the only plugin and counts as shipped with Drupe."""
    from drupe.api import registry

    acme.ship("acme")
    with acme.installed_here():
        yield registry()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "model.txt").write_text("hello")
    return folder
