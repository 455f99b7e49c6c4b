"""The plugin: it claims to package decoders, and registering loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from drupe.api import Claim, Model, ModelError, Request, Stage, Step, Target
from drupe_onnxruntime.plugin import drupe_claim


def claim(stage: str = "package", **model: object) -> Claim | None:
    made = Model(**{"kind": "onnx", "location": Path("m"), "task": "text-generation", **model})  # type: ignore[arg-type]
    return drupe_claim(Stage(stage), made, Target("cpu"), Request("m"))


def test_decoders_are_packaged_for_onnxruntime_genai() -> None:
    assert claim() == Claim("genai", (Step("package-genai"),))


@pytest.mark.parametrize("other", [{"stage": "quantize"}, {"kind": "hf"}, {"task": None}, {"task": "fill-mask"}])
def test_other_stages_kinds_and_tasks_are_not_claimed(other: dict[str, object]) -> None:
    assert claim(**other) is None  # type: ignore[arg-type]


def test_a_model_of_several_parts_is_refused_with_the_reason() -> None:
    with pytest.raises(ModelError, match="this one has vision, decoder"):
        claim(parts={"vision": {}, "decoder": {}})


def test_registering_runtimes_and_passes_loads_nothing_heavy() -> None:
    code = "import sys, drupe_onnxruntime.plugin as p; p.drupe_runtimes(); p.drupe_passes(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {
        "numpy",
        "onnxruntime",
        "onnxruntime_genai",
        "pydantic",
        "drupe_decoding",
        "drupe_onnxruntime.plain.runtime",
    }
    assert not heavy & set(loaded)
