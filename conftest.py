"""Fixtures of all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What an earlier session has kept in the user's cache must not decide whether a test passes."""
    before = os.environ.get("DRUPE_CACHE")
    os.environ["DRUPE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["DRUPE_CACHE"]
    else:
        os.environ["DRUPE_CACHE"] = before


@pytest.fixture(scope="session", autouse=True)
def no_plugin_is_slow() -> Iterator[None]:
    """A machine under load must not add "took 1.2 s to ..." to what a test reads. Tests of slow ones set it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("drupe.containment.SLOW", 600.0)
        yield
