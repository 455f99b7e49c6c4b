"""Install commands in messages work where Drupe was installed from a clone."""

from __future__ import annotations

from pathlib import Path

import pytest

from drupe_commands import from_sources

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of distributions of Drupe that count as not installed. All others count as installed from this clone."""
    absent: set[str] = set()
    monkeypatch.setattr(from_sources, "_clone", lambda: ROOT)
    monkeypatch.setattr(from_sources, "_is_installed", lambda name: name not in absent)
    return absent


def test_an_extra_is_installed_from_the_folders_that_it_lacks(absent: set[str]) -> None:
    absent |= {"drupe-executor-ray", "drupe-search-optuna"}
    ray, optuna = ROOT / "plugins" / "executor_ray", ROOT / "plugins" / "search_optuna"
    assert from_sources.from_sources("try: pip install 'drupe[ray]', or stop") == (
        f"try: pip install {ray} {optuna}, or stop"
    )
    assert from_sources.from_sources("pip install drupe-search-optuna") == f"pip install {optuna}"


def test_an_extra_of_what_is_installed_is_installed_from_the_index(absent: set[str]) -> None:
    told = from_sources.from_sources("pip install 'drupe[cpu]' (or 'drupe[cuda]')")
    assert told.startswith("pip install 'onnxruntime>=") and "(or 'onnxruntime-gpu>=" in told
    assert from_sources.from_sources("pip install acme, or pip uninstall drupe-text") == (
        "pip install acme, or pip uninstall drupe-text"
    )


def test_a_release_keeps_the_names_of_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_sources, "_clone", lambda: None)
    assert from_sources.from_sources("pip install 'drupe[ray]'") == "pip install 'drupe[ray]'"
