"""Loading a wheel."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from drupe.api import RuntimeMissing
from drupe_onnxruntime import GENAI, ONNXRUNTIME, load


@pytest.mark.parametrize("family", [ONNXRUNTIME, GENAI], ids=lambda family: family[0])
def test_loading_switches_usage_data_off_unless_the_user_decided(
    monkeypatch: pytest.MonkeyPatch, family: Sequence[str]
) -> None:
    pytest.importorskip(family[0].replace("-", "_"))
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    load(family)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    load(family)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"


def test_what_is_not_there_is_said_with_the_cure() -> None:
    with pytest.raises(RuntimeMissing, match="onnxruntime-of-tomorrow is not installed") as caught:
        load(("onnxruntime-of-tomorrow",))
    assert "pip install" in (caught.value.cure or "")
