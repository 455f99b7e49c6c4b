"""Fixtures: the target for this machine's processor, and the wheels that the plugin finds installed."""

from __future__ import annotations

from importlib import metadata

import pytest

from drupe.api import Target


@pytest.fixture(scope="session")
def cpu() -> Target:
    from drupe_ep_cpu.provider import Cpu

    return Cpu().target()


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The distributions that the plugin finds installed. A test may change them."""
    versions = {"onnxruntime-genai": "0.18.0", "onnxruntime": "1.32.0"}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)
    return versions
