"""A decoder whose states onnxruntime-genai does not carry becomes a package that Drupe runs with onnxruntime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny import VOCABULARY, write_tokenizer

import drupe

HIDDEN, HEADS, KEYS, VALUES = 32, 2, 16, 8


@pytest.fixture(scope="module")
def narrow_values(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder of two layers, as another tool may export it: keys of 16 elements a head, and values of 8."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights, nodes = [], []

    def weight(name: str, *shape: int) -> str:
        weights.append(numpy_helper.from_array((rng.standard_normal(shape) * 0.2).astype(np.float32), name))
        return name

    def node(operator: str, inputs: list[str], *outputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0]

    def value(name: str, *shape: object, element: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, element, shape)

    inputs = [value("input_ids", "b", "s", element=TensorProto.INT64)]
    outputs = [value("logits", "b", "s", VOCABULARY)]
    hidden = node("Gather", [weight("embedding", VOCABULARY, HIDDEN), "input_ids"], "hidden")
    for layer in range(2):
        sizes = {"query": KEYS, "key": KEYS, "value": VALUES}
        turned = [
            node("MatMul", [hidden, weight(f"{name}_{layer}", HIDDEN, HEADS * size)], f"{name}s_{layer}")
            for name, size in sizes.items()
        ]
        pasts = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        presents = [f"present.{layer}.{part}" for part in ("key", "value")]
        inputs += [value(name, "b", HEADS, "p", sizes[name.rsplit(".")[-1]]) for name in pasts]
        outputs += [value(name, "b", HEADS, "t", sizes[name.rsplit(".")[-1]]) for name in presents]
        heads = {"q_num_heads": HEADS, "kv_num_heads": HEADS}
        read = node("Attention", [*turned, "", *pasts], f"read_{layer}", *presents, is_causal=1, **heads)
        back = node("MatMul", [read, weight(f"back_{layer}", HEADS * VALUES, HIDDEN)], f"back_of_{layer}")
        hidden = node("Add", [hidden, back], f"hidden_{layer}")
    node("MatMul", [hidden, weight("head", HIDDEN, VOCABULARY)], "logits")
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, weights)
    folder = tmp_path_factory.mktemp("narrow")
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), folder / "model.onnx"
    )
    sizes = {"hidden_size": HIDDEN, "num_attention_heads": HEADS, "num_hidden_layers": 2, "head_dim": KEYS}
    config = {"model_type": "llama", "vocab_size": VOCABULARY, "max_position_embeddings": 128, "eos_token_id": 1}
    (folder / "config.json").write_text(json.dumps(config | sizes))
    write_tokenizer(folder)
    return folder


def test_it_is_checked_and_compared_and_writes_text_with_onnxruntime(narrow_values: Path, tmp_path: Path) -> None:
    outcome = drupe.optimize(narrow_values, tmp_path / "out", provider="cpu", tokens=64)
    assert outcome.check.runtime == "onnxruntime"
    assert outcome.check.metrics["kl_divergence"] < 0.1
    assert not (tmp_path / "out" / "genai_config.json").exists()
    with drupe.open(tmp_path / "out") as session:
        session.generate("def", max_new_tokens=4)
        assert session.timing.new_tokens == 4


def test_a_notice_says_which_state_and_what_runs_the_package(narrow_values: Path, tmp_path: Path) -> None:
    outcome = drupe.optimize(narrow_values, tmp_path / "out", provider="cpu", verify=False)
    (told,) = (each for each in outcome.notices if each.about == "runtime")
    assert told.what == (
        "onnxruntime runs the package: layer 0 has 2 heads of 16 elements for keys and 2 heads of 8 elements for "
        "values, and onnxruntime-genai gives both the same"
    )


def test_a_length_that_only_genai_reads_is_refused(narrow_values: Path, tmp_path: Path) -> None:
    with pytest.raises(drupe.api.UsageError, match="max_length has no effect on this model"):
        drupe.optimize(
            narrow_values,
            tmp_path / "out",
            provider="cpu",
            verify=False,
            settings={"package-genai": {"max_length": 64}},
        )


def names(when: str, name: str) -> dict[str, str]:
    """The names of caches in genai_config.json."""
    return {f"{when}_{part}_names": f"{name}.%d.{part}" for part in ("key", "value")}


def test_genai_still_refuses_such_a_graph(narrow_values: Path, tmp_path: Path) -> None:
    """When this fails, onnxruntime-genai has learned to carry it, and the rule in `carried` can go."""
    genai = pytest.importorskip("onnxruntime_genai")
    drupe.optimize(narrow_values, tmp_path / "out", provider="cpu", precision="fp32", verify=False)
    decoder = {
        "filename": "model.onnx", "hidden_size": HIDDEN, "head_size": KEYS, "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS, "num_hidden_layers": 2,
        "inputs": {"input_ids": "input_ids", **names("past", "past_key_values")},
        "outputs": {"logits": "logits", **names("present", "present")},
    }  # fmt: skip
    model = {
        "type": "decoder", "context_length": 128, "vocab_size": VOCABULARY, "eos_token_id": 1, "pad_token_id": 1,
        "decoder": decoder,
    }  # fmt: skip
    (tmp_path / "out" / "genai_config.json").write_text(json.dumps({"model": model, "search": {"max_length": 64}}))
    parameters = genai.GeneratorParams(opened := genai.Model(str(tmp_path / "out")))
    parameters.set_search_options(max_length=16)
    with pytest.raises(Exception, match="invalid dimensions for input: past_key_values"):
        genai.Generator(opened, parameters).append_tokens(np.array([5, 6, 7], np.int32))
