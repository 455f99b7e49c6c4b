"""Packages of decoders with states: both runtimes write what transformers writes."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import decoder_families
import numpy as np
import pytest

from drupe.api import Model, registry, target_of

PROMPT = [5, 71, 33, 90, 12, 12, 48, 7, 66, 23, 81, 44, 9, 9, 31, 77, 3, 50, 18, 62]
NEW = 12
NAMES = ("lfm2", "qwen3_5_text", "falcon_h1", "nemotron_h", "mamba2")
"""Convolutions alone; states beside keys and values; both in each layer; layers with neither; no keys and values."""


@pytest.fixture(scope="module", params=NAMES)
def made(request: Any, kit: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, list[int]]:
    """A package, and the tokens that transformers writes after the prompt."""
    folder = tmp_path_factory.mktemp("states")
    checkpoint, reference = decoder_families.make(request.param, folder)
    found = registry()
    return kit.make_package(checkpoint, folder / "package", target_of(found.provider("cpu"), found)), written(reference)


def written(checkpoint: Path) -> list[int]:
    """The likeliest tokens after the prompt, one by one."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    cache = "past_key_values" if "past_key_values" in inspect.signature(model.forward).parameters else "cache_params"
    past, new, tokens = None, PROMPT, []
    for _ in range(NEW):
        with torch.no_grad():
            out = model(torch.tensor([new]), use_cache=True, **{cache: past})
        past, new = out[cache], [int(out.logits[0, -1].argmax())]
        tokens += new
    return tokens


def test_genai_writes_what_transformers_writes(made: tuple[Model, list[int]]) -> None:
    genai = pytest.importorskip("onnxruntime_genai")
    package, expected = made
    parameters = genai.GeneratorParams(model := genai.Model(str(package.location)))
    parameters.set_search_options(max_length=len(PROMPT) + NEW, do_sample=False, batch_size=1)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(np.array(PROMPT, np.int32))
    tokens = []
    for _ in range(NEW):
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    assert tokens == expected


def test_plain_onnxruntime_writes_what_transformers_writes(made: tuple[Model, list[int]]) -> None:
    import onnxruntime

    from drupe_onnxruntime.plain.decoder import Decoder
    from drupe_onnxruntime.plain.model_settings import read_settings

    package, expected = made
    session = onnxruntime.InferenceSession(package.location / "model.onnx", providers=["CPUExecutionProvider"])
    decoder = Decoder(onnxruntime, session, read_settings(package.location).cache_sizes)
    tokens, new = [], PROMPT
    for _ in range(NEW):
        new = [int(decoder.step(new).argmax())]
        tokens += new
    assert tokens == expected


def test_layer_types_are_written_for_convolutions_alone(made: tuple[Model, list[int]]) -> None:
    """Beside recurrent states they make onnxruntime-genai overwrite the states of the convolutions."""
    package, _ = made
    decoder = json.loads((package.location / "genai_config.json").read_text())["model"]["decoder"]
    if "past_recurrent_names" in decoder["inputs"]:
        assert "layer_types" not in decoder
    else:
        assert decoder["layer_types"] == ["conv", "conv", "full_attention", "conv", "full_attention"]
        assert len(decoder["layer_types"]) == decoder["num_hidden_layers"]
