"""A target that lacks what a decoder needs: the error names the operator, and what it says to try works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import decoder_families
import numpy as np
import pytest
from plain_decoders import decoder_feed
from typer.testing import CliRunner

from drupe.api import Context, Model, PlanError, Target, registry, replace, target_of
from drupe_commands.program import app
from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig

LACKING = {
    "lfm2": "has no CausalConvWithState for float16 activations, which a short convolution needs",
    "kimi_linear": "has no CausalConvWithState for float16 activations, which linear attention needs",
    "mixtral": "has neither MoE nor QMoE for float16 activations, so it cannot run experts",
    "gemma2": "has no GroupQueryAttention for float16 activations with a window and a softcap",
    "bloom": "has no GroupQueryAttention for float16 activations with a bias by distance",
}
PROMPT = np.array([[3, 77, 130, 9, 9, 250, 41]])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = decoder_families.make(name, tmp_path_factory.mktemp("lacking"))[0]
        return made[name]

    return make


def plan(checkpoint: Path, *options: str) -> Any:
    """What `drupe optimize --plan` does with these options."""
    typed = ["optimize", str(checkpoint), "-o", "none", "--plan", "--quality", "fast", *options]
    return CliRunner().invoke(app, typed, obj={})


@pytest.mark.parametrize("name", LACKING)
def test_a_provider_that_lacks_an_operator_is_refused_and_each_way_out_works(name: str, checkpoint: Any) -> None:
    refused = plan(checkpoint(name), "--provider", "dml")
    assert refused.exit_code == PlanError.exit_status
    assert f"error: 'dml' of drupe-ep-dml 0.1.0 {LACKING[name]}\n" in refused.output
    ways = refused.output.partition("try: ")[2].strip().split(", or ")
    assert "--provider cpu" in ways
    for way in ways:
        followed = plan(checkpoint(name), *way.split(), "--json")
        assert followed.exit_code == 0, way
        assert json.loads(followed.stdout)["problems"] == []


@pytest.mark.parametrize("name", ["falcon_mamba", "nemotron_h", "olmo", "apertus", "deepseek_v2"])
def test_operators_that_a_target_has_in_float32_only_stand_between_casts(name: str, checkpoint: Any) -> None:
    planned = CliRunner().invoke(
        app,
        [
            "optimize",
            str(checkpoint(name)),
            "-o",
            "none",
            "--plan",
            "--json",
            "--provider",
            "cuda",
            "--precision",
            "bf16",
        ],
        obj={},
    )
    assert planned.exit_code == 0
    assert json.loads(planned.stdout)["problems"] == []


def without(target: Target, *operators: str) -> Target:
    """The target without some operators."""
    table = target.capabilities
    left = {key: each for key, each in table.operators.items() if key not in operators}
    return replace(target, capabilities=replace(table, operators=left))


@pytest.fixture(scope="module")
def processor() -> Target:
    found = registry()
    return target_of(found.provider("cpu"), found)


def build(checkpoint: Path, target: Target, folder: Path) -> Model:
    folder.mkdir(exist_ok=True)
    return BuildDecoder().run(Model("hf", checkpoint), BuildDecoderConfig(), Context(target, folder, threads=2))


def test_a_runtime_that_is_too_old_is_to_be_updated(checkpoint: Any, tmp_path: Path) -> None:
    provider = registry().provider("cpu")
    old = replace(provider.target(), capabilities=provider.capabilities("1.24"))  # type: ignore[attr-defined]
    with pytest.raises(PlanError, match=r"'cpu' of drupe-ep-cpu \S+ has no CausalConvWithState") as caught:
        build(checkpoint("lfm2"), old, tmp_path)
    assert caught.value.cure == "pip install -U 'drupe[cpu]'"


def test_a_model_that_the_newest_runtime_cannot_run_either_is_for_another_target(
    checkpoint: Any, processor: Target, tmp_path: Path
) -> None:
    table = without(processor, "com.microsoft::CausalConvWithState")
    with pytest.raises(PlanError) as caught:
        build(checkpoint("lfm2"), table, tmp_path)
    assert caught.value.cure is not None and "another --precision or --provider" in caught.value.cure


@pytest.mark.parametrize(("name", "own"), [("gpt2", "FastGelu"), ("gpt_neox", "Gelu")])
def test_an_activation_is_made_of_what_the_target_has(
    name: str, own: str, checkpoint: Any, processor: Target, tmp_path: Path
) -> None:
    import onnxruntime

    from drupe_onnx import write_package

    made = {}
    for kind, missing in {"whole": (), "own": ("Gelu",), "written out": ("Gelu", f"com.microsoft::{own}")}.items():
        folder = tmp_path / kind
        model = build(checkpoint(name), without(processor, *missing), folder)
        operators = {(node.domain, node.op_type) for node in model.payload.component.graph}
        assert (("", "Gelu") in operators, ("com.microsoft", own) in operators) == (kind == "whole", kind == "own")
        write_package(model.payload, folder, Context(processor, folder, threads=2))
        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        made[kind] = session.run(["logits"], decoder_feed(session, PROMPT))[0]
    for kind in ("own", "written out"):
        np.testing.assert_allclose(made[kind], made["whole"], atol=1e-5 * np.abs(made["whole"]).max())
