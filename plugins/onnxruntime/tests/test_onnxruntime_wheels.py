"""Finding and loading the wheels of a runtime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from drupe.api import RuntimeMissing
from drupe_onnxruntime.wheels import GENAI, ONNXRUNTIME, absence, load, version_of


@pytest.mark.parametrize("family", [ONNXRUNTIME, GENAI], ids=lambda family: family[0])
def test_loading_a_runtime_disables_telemetry_unless_the_user_has_set_it(
    monkeypatch: pytest.MonkeyPatch, family: Sequence[str]
) -> None:
    pytest.importorskip(family[0].replace("-", "_"))
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    load(family)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    load(family)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"


def test_the_error_for_a_missing_wheel_names_the_cure() -> None:
    with pytest.raises(RuntimeMissing, match="onnxruntime-of-tomorrow is not installed") as caught:
        load(("onnxruntime-of-tomorrow",))
    assert "pip install" in (caught.value.cure or "")


def test_a_vendors_wheel_counts_as_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "onnxruntime_acme-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-acme\nVersion: 2.0\n")
    (info / "top_level.txt").write_text("acme_runtime\n")
    (tmp_path / "acme_runtime.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    family = ("acme-runtime", "acme-runtime-gpu")
    assert version_of(family) == "2.0"
    assert absence(family) is None
