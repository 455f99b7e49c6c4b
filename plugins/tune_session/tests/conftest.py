"""Packages of tiny models, and a bench whose sessions are real and whose times are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny import make_checkpoint

import drupe
from drupe_tune_session.telling import words_of

MODULES = '[{"path": "", "type": "models.Transformer"}, {"path": "1_Pooling", "type": "models.Pooling"}]'


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("tuned") / "checkpoint")


@pytest.fixture
def package(checkpoint: Path, tmp_path: Path) -> Path:
    """A decoder's package, not tuned."""
    drupe.optimize(checkpoint, tmp_path / "out", quality="fast", verify=False, provider="cpu", threads=2)
    return tmp_path / "out"


@pytest.fixture
def embedder(tmp_path: Path) -> Path:
    """A package without a genai_config.json."""
    made = make_checkpoint(tmp_path / "embedding", "qwen2", tie_word_embeddings=True)
    (made / "modules.json").write_text(MODULES)
    (made / "1_Pooling").mkdir()
    (made / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    drupe.optimize(made, tmp_path / "embedder", precision="fp32", verify=False, provider="cpu")
    return tmp_path / "embedder"


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, Any]], None]:
    """Says how long runs take: for each changed setting, by what the time is multiplied. Sessions open as ever."""

    def given(factors: Mapping[str, Any]) -> None:
        def cost(bench: object, changes: Mapping[str, Any]) -> float:
            time = 100.0
            for name, value in changes.items():
                time *= factors.get(words_of({name: value}), 1.0)
            return time

        monkeypatch.setattr("drupe_tune_session.bench.SessionBench.cost", cost)

    return given
