"""Edits of config.json that are easily read otherwise than transformers reads them: the same logits, or an error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import decoder_families
import numpy as np
import pytest

from drupe.api import ModelError, Target, registry, target_of

PROMPT = [5, 71, 33, 90, 12, 12, 48, 7, 66, 23, 81, 44, 9, 9, 31, 77, 3, 50, 18, 62]
LINEAR = {"rope_type": "linear", "factor": 3.0}
SLIDING = {"sliding_attention": {"rope_type": "default", "rope_theta": 44.0}}
FULL = {"full_attention": {"rope_type": "default", "rope_theta": 55.0}}
PAIRS = {"short_factor": [1.0] * 8, "long_factor": [float(each) for each in range(1, 9)]}

EQUAL: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
    ("gemma", (), {"hidden_act": "gelu"}),
    ("gemma", (), {"hidden_act": "silu", "hidden_activation": None}),
    ("gemma", (), {"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"}),
    ("gemma3_text", (), {"rope_parameters": FULL}),
    ("gemma3_text", (), {"rope_parameters": SLIDING, "rope_theta": 123.0}),
    ("gemma3_text", (), {"rope_parameters": {**FULL, **SLIDING}, "rope_scaling": LINEAR}),
    ("gemma3_text", ("rope_parameters",), {"rope_theta": 123.0, "rope_local_base_freq": 77.0, "rope_scaling": LINEAR}),
    ("olmo3", ("rope_parameters",), {"rope_theta": 500000.0, "rope_scaling": LINEAR}),
    ("olmo3", (), {"rope_parameters": FULL}),
    ("phi3, longrope", (),
     {"rope_scaling": {"rope_type": "longrope", **PAIRS}, "original_max_position_embeddings": 12}),
    ("phi3, longrope", ("original_max_position_embeddings", "rope_scaling", "rope_parameters"),
     {"rope_scaling": {"type": "longrope", **PAIRS}}),
    ("gpt_oss", ("rope_parameters",), {}),
    ("exaone4", ("layer_types",), {}),
    ("exaone4", ("layer_types",), {"sliding_window_pattern": 5}),
    ("cohere2_moe", ("layer_types",), {}),
    ("cwm", ("rope_parameters",), {"rope_theta": 5000.0}),
    ("apertus", ("rope_parameters",), {}),
    ("ministral3", ("rope_parameters",), {}),
    ("solar_open", ("rope_parameters",), {}),
    ("iquestcoder", ("rms_norm_eps",), {}),
    ("nemotron_h", (), {"time_step_min": 0.3}),
    ("olmo_hybrid", ("rope_parameters",), {}),
    ("olmo_hybrid", ("rope_parameters",), {"rope_theta": None}),
    ("smollm3, windows", (), {"use_sliding_window": False}),
    ("smollm3", (), {"sliding_window": 5}),
    ("mistral4", (), {"norm_topk_prob": None}),  # a flag that is null is off, also where it is on by default
    ("deepseek_v3", (), {"rope_interleave": None}),
    ("bailing_hybrid", (), {"moe_renormalize": None}),
    ("falcon_h1, norm behind the gate", (), {"mamba_norm_before_gate": None}),
    ("llama", (), {"rope_scaling": {"rope_type": "yarn", "factor": 0.5, "original_max_position_embeddings": 16}}),
]  # fmt: skip
REFUSED: list[tuple[str, tuple[str, ...], dict[str, Any], str]] = [
    ("gemma", (), {"hidden_activation": "silu"}, "another activation function"),
    ("gemma3_text", (), {"attn_logit_softcapping": 2.0}, "limits the scores of attention"),
    ("gemma3_text", (), {"rope_parameters": {"rope_type": "default", "rope_theta": 55.0}}, "wants an object for each"),
    ("gemma3_text", (), {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5 in config.json rotates a part"),
    ("olmo3", ("rope_parameters",), {"rope_theta": 123.0}, "transformers 4 gives this base to all layers"),
    ("phi3, longrope", ("original_max_position_embeddings",),
     {"rope_scaling": {"rope_type": "longrope", "original_max_position_embeddings": 12, **PAIRS}}, "top level"),
    ("hunyuan_v1_dense, alpha", ("rope_scaling",),
     {"rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "alpha": 50.0}}, "alpha = 50.0"),
    ("dots1", (), {"num_experts_per_tok": 5}, "num_experts_per_tok = 5 is more than"),
    ("gptj", (), {"rope_theta": 300.0}, "whose gptj ignores it"),
    ("codegen", (), {"rope_scaling": LINEAR}, "whose codegen ignores it"),
    ("granite_swa", (), {"partial_rotary_factor": 0.5}, "rotates a part of each head"),
    ("granitemoe", (), {"attention_multiplier": None}, "it must be a number"),
    ("granite", (), {"attention_multiplier": 0.0}, "make the scale of attention 0"),
    ("falcon_h1", (), {"key_multiplier": 0.0}, "make the scale of attention 0"),
    ("bailing_hybrid", (), {"kda_lower_bound": 0.0}, "it must be below 0"),
    ("olmo_hybrid", (), {"hidden_act": "gelu"}, "another activation of the convolution"),
]  # fmt: skip


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A copy of a case's checkpoint, made once, with keys removed from config.json and others written."""
    made: dict[str, Path] = {}

    def edit(name: str, removed: tuple[str, ...], written: dict[str, Any], folder: Path) -> Path:
        if name not in made:
            made[name] = decoder_families.make(name, tmp_path_factory.mktemp("variant"))[0]
        shutil.copytree(made[name], folder)
        config = json.loads((folder / "config.json").read_text())
        kept = {key: value for key, value in config.items() if key not in removed}
        (folder / "config.json").write_text(json.dumps({**kept, **written}))
        return folder

    return edit


@pytest.fixture(scope="module")
def processor() -> Target:
    """onnxruntime's processor, with the table of the installed version."""
    found = registry()
    return target_of(found.provider("cpu"), found)


@pytest.mark.parametrize(("name", "removed", "written"), EQUAL)
def test_an_edited_configuration_means_what_it_means_in_transformers(
    name: str,
    removed: tuple[str, ...],
    written: dict[str, Any],
    edited: Any,
    kit: SimpleNamespace,
    processor: Target,
    tmp_path: Path,
) -> None:
    folder = edited(name, removed, written, tmp_path / "model")
    stepper = kit.Stepper(kit.build(folder, processor, tmp_path / "out", weights="float32", all_logits=True))
    reference = kit.Reference(folder)
    for new in (PROMPT, [17]):
        expected = reference(new)
        assert np.abs(stepper([new])[0] - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(("name", "removed", "written", "message"), REFUSED)
def test_an_edit_that_transformers_reads_in_a_way_nobody_means_is_refused(
    name: str,
    removed: tuple[str, ...],
    written: dict[str, Any],
    message: str,
    edited: Any,
    kit: SimpleNamespace,
    processor: Target,
    tmp_path: Path,
) -> None:
    folder = edited(name, removed, written, tmp_path / "model")
    with pytest.raises(ModelError) as caught:
        kit.build(folder, processor, tmp_path / "out")
    assert message in f"{caught.value} {caught.value.cure}"
