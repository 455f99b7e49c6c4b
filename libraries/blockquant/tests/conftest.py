"""The choice of backend, and a path to the tests' shared cases, which pytest's importlib mode does not add."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=["numba", "numpy"])
def backend(request, monkeypatch):
    if request.param == "numba":
        pytest.importorskip("numba")
    monkeypatch.setenv("DRUPE_BLOCKQUANT", request.param)
    return request.param
