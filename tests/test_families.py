"""Packages of every family: greedy tokens through onnxruntime-genai, and int4 weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import checkout_tools
import decoder_families
import onnx_ir as ir
import pytest
import tiny

import drupe
from drupe_nbits import ROUTER
from drupe_nbits.sites import GATES, TOKEN_TABLES
from drupe_onnx import ROLE

ROOT = Path(__file__).resolve().parents[1]
PROMPT = [3, 77, 130, 9, 9, 250, 41]
NEW_TOKENS = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(checkpoint, reference) of a case, made once."""
    found: dict[str, tuple[Path, Path]] = {}

    def make(name: str) -> tuple[Path, Path]:
        if name not in found:
            found[name] = decoder_families.make(name, tmp_path_factory.mktemp("family"))
        return found[name]

    return make


@pytest.mark.parametrize("name", decoder_families.CASES)
def test_greedy_tokens_of_a_family_equal_those_of_transformers(name: str, made: Any, tmp_path: Path) -> None:
    checkpoint, reference = made(name)
    drupe.optimize(checkpoint, tmp_path / "out", precision="fp32", verify=False)
    assert _greedy_in_genai(tmp_path / "out") == _greedy_in_transformers(reference)


@pytest.mark.parametrize("name", decoder_families.CASES)
def test_every_matrix_of_a_family_is_quantized_and_the_package_runs(name: str, made: Any, tmp_path: Path) -> None:
    outcome = drupe.optimize(made(name)[0], tmp_path / "out", precision="int4", quality="fast")
    assert outcome.check.not_run is None
    assert outcome.check.not_compared is None
    assert outcome.check.metrics["kl_divergence"] < 1.5  # random weights diverge more than trained ones
    graph = ir.load(tmp_path / "out" / "model.onnx").graph
    products = [node for node in graph if node.op_type in ("MatMul", "Gemm", "FusedMatMul", "MoE")]
    assert not [node for node in graph if node.op_type == "Gather" and node.metadata_props.get(ROLE) in TOKEN_TABLES]
    with_weights = [node for node in products if any(_is_weight(value) for value in node.inputs)]
    assert {node.metadata_props.get(ROLE) for node in with_weights} <= {ROUTER, GATES}


def test_the_table_of_families_in_the_docs_is_current() -> None:
    """`python tools/families.py` writes it."""
    tool = checkout_tools.tool("families")
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page()


def test_the_page_of_configuration_keys_is_current() -> None:
    """`python tools/configuration_keys.py` writes it."""
    tool = checkout_tools.tool("configuration_keys")
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page()


def _is_weight(value: ir.Value | None) -> bool:
    """Whether a value is an initializer, or one in another type."""
    node = None if value is None else value.producer()
    if node is not None and node.op_type == "Cast":
        value = node.inputs[0]
    return value is not None and value.is_initializer()


def _greedy_in_genai(package: Path) -> list[int]:
    import onnxruntime_genai as og

    model = og.Model(str(package))
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=len(PROMPT) + NEW_TOKENS, do_sample=False)
    generator = og.Generator(model, params)
    generator.append_tokens(PROMPT)
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)]


def _greedy_in_transformers(checkpoint: Path) -> list[int]:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    tokens = torch.tensor([PROMPT])
    found = model.generate(
        tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0
    )
    listed: list[int] = found[0].tolist()
    return listed[:-1] if listed[-1] == tiny.END else listed  # onnxruntime-genai leaves the end token out
