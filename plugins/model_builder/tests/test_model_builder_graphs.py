"""The built graphs: names, marks, precisions, shared weights, the all-logits twin. Also refused checkpoints."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from drupe.api import Context, Model, ModelError, PlanError, Target, UsageError
from drupe_checkpoints import open_checkpoint
from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig
from drupe_model_builder.finding import composition_of
from drupe_model_builder.rotary_tables import RotaryCache
from drupe_onnx import (
    Concat,
    Files,
    OnnxPackage,
    Transpose,
    all_logits,
    expression_of,
    fingerprint,
    from_json,
    ir,
    to_json,
    write_package,
    write_twin,
)

SMALL = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "vocab_size": 32,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SIZES = {"BF16": 2, "F16": 2, "F32": 4, "I32": 4}


def write_checkpoint(
    folder: Path, config: dict[str, Any] = SMALL, dtype: str = "BF16", changed: dict[str, Any] | None = None
) -> Path:
    """A checkpoint of zeros. changed: other shapes for tensors by name, None to leave one out, and more tensors."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    shapes = {**composition_of(open_checkpoint(folder)).tensors(), **(changed or {})}
    header, offset = {}, 0
    for name, shape in shapes.items():
        if shape is not None:
            size = int(np.prod(shape)) * SIZES[dtype]
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
            offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(offset))
    return folder


def build(folder: Path, target: Target, **config: Any) -> Model:
    return BuildDecoder().run(Model("hf", folder), BuildDecoderConfig(**config), Context(target, folder))


def graph_of(model: Model) -> ir.Graph:
    package: OnnxPackage = model.payload
    return package.component.graph


def roles(graph: ir.Graph) -> dict[str, ir.Node]:
    """The last node of each role."""
    return {node.metadata_props["drupe.role"]: node for node in graph if "drupe.role" in node.metadata_props}


def test_names_roles_blocks_and_types_of_a_graph_follow_the_conventions(tmp_path: Path, cpu: Target) -> None:
    model = build(write_checkpoint(tmp_path), cpu, weights="float32")
    graph = graph_of(model)
    assert model.kind == "onnx"
    assert dict(model.facts) == {"weights": "float", "logits": "last", "packaged": "no"}
    assert [value.name for value in graph.inputs] == [
        "input_ids", "attention_mask", "past_key_values.0.key", "past_key_values.0.value", "past_key_values.1.key",
        "past_key_values.1.value",
    ]  # fmt: skip
    assert [value.name for value in graph.outputs] == [
        "logits", "present.0.key", "present.0.value", "present.1.key", "present.1.value",
    ]  # fmt: skip
    assert list(graph.outputs[0].shape) == ["batch", 1, 32]
    blocks = [node.metadata_props.get("drupe.block") for node in graph]
    assert set(blocks) == {None, "0", "1"}
    for node in graph:
        inside = any(part in (node.name or "") for part in ("layers.0.", "layers.1."))
        assert inside == ("drupe.block" in node.metadata_props), node.name
        assert all(value.type and value.shape is not None for value in node.outputs if value.name)
    assert set(roles(graph)) == {
        "embedding", "norm", "attention.qkv", "attention.output", "mlp.gate", "mlp.up", "mlp.down", "last-token",
        "head", "padding",
    }  # fmt: skip
    packed = expression_of(graph.initializers["model.layers.0.self_attn.qkv_proj.weight"])
    assert isinstance(packed, Transpose)
    assert packed.shape == (32, 64)
    assert model.payload.decoder.eos == (2,)
    assert model.payload.decoder.kv_dtype == "float32"


def test_a_tied_head_multiplies_with_the_embedding_matrix(tmp_path: Path, cpu: Target, kit: SimpleNamespace) -> None:
    found = roles(graph_of(build(write_checkpoint(tmp_path), cpu, weights="float32")))
    assert found["head"].op_type == "FusedMatMul"
    assert found["head"].inputs[1] is found["embedding"].inputs[0]
    without = Target("other", "", kit.everything(FusedMatMul=None))
    found = roles(graph_of(build(tmp_path, without, weights="float32")))
    assert found["head"].op_type == "MatMul"
    transposed = expression_of(found["head"].inputs[1])
    assert isinstance(transposed, Transpose)
    assert transposed.source == expression_of(found["embedding"].inputs[0])


def test_matrices_keep_their_type_and_are_cast_by_default(tmp_path: Path, cpu: Target) -> None:
    graph = graph_of(build(write_checkpoint(tmp_path), cpu))
    for role, node in roles(graph).items():
        if role.startswith(("attention", "mlp", "head")):
            cast = node.inputs[1].producer()
            assert cast.op_type == "Cast"
            assert cast.inputs[0].dtype == ir.DataType.BFLOAT16
            assert node.outputs[0].dtype == ir.DataType.FLOAT
    assert graph.initializers["model.norm.weight"].dtype == ir.DataType.FLOAT
    assert graph.initializers["model.layers.0.self_attn.qkv_proj.bias"].dtype == ir.DataType.FLOAT
    same = graph_of(build(write_checkpoint(tmp_path, dtype="F32"), cpu))
    assert not any(node.op_type == "Cast" and node.inputs[0].is_initializer() for node in same)


def test_the_all_logits_twin_shares_the_data_file(kit: SimpleNamespace, cpu: Target, tmp_path: Path) -> None:
    folder = kit.make_checkpoint(tmp_path / "checkpoint", "qwen3", head_dim=32, tie_word_embeddings=True)
    model = build(folder, cpu, weights="float32")
    package: OnnxPackage = model.payload
    twin = all_logits(package.component)
    assert list(twin.graph.outputs[0].shape) == ["batch", "sequence", 96]
    assert "last-token" not in roles(twin.graph)
    assert "last-token" in roles(graph_of(model))  # the original is unchanged
    assert not any("last_token" in node.name for node in twin.graph)
    (tmp_path / "one").mkdir()
    write_package(package, tmp_path / "one", Context(cpu, tmp_path))
    written = write_twin(Model("onnx", tmp_path / "one"), tmp_path / "twin")
    assert written.location == tmp_path / "twin"
    assert dict(written.facts) == {"weights": "float", "logits": "all", "packaged": "no"}
    data = [tmp_path / name / "model.onnx.data" for name in ("one", "twin")]
    assert data[0].samefile(data[1])  # one file with two names, not a copy
    ids = [3, 9, 27, 81, 40]
    expected = kit.Reference(folder)(ids)
    np.testing.assert_allclose(kit.Stepper(tmp_path / "twin")([ids])[0], expected, atol=1e-4)


def test_rotary_tables_are_lazy_expressions_that_take_no_memory() -> None:
    table = RotaryCache("sin", 1 << 40, (1.0, 0.5), 1.0, ir.DataType.FLOAT16)
    assert from_json(json.loads(json.dumps(to_json(table)))) == table
    assert fingerprint(table) != fingerprint(RotaryCache("cos", 1 << 40, (1.0, 0.5), 1.0, ir.DataType.FLOAT16))


def test_building_a_graph_reads_no_weights(tmp_path: Path, cpu: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_checkpoint(tmp_path)
    monkeypatch.setattr(Files, "read_into", lambda *_: pytest.fail("a weight was read"))
    for config in ({}, {"weights": "float32"}, {"weights": "float16", "activations": "float16"}):
        all_logits(build(folder, cpu, **config).payload.component)


def test_neither_torch_nor_transformers_nor_onnxruntime_is_imported() -> None:
    code = (
        "import sys, drupe_model_builder.build_decoder, drupe_model_builder.decoder, drupe_checkpoints.kind; "
        "print([name for name in ('torch', 'transformers', 'onnxruntime', 'onnx_ir.passes.common', 'huggingface_hub') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_neither_numpy_nor_onnx_ir_is_imported_to_describe_and_refuse(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    code = (
        "import sys; from pathlib import Path; from drupe.api import Model; "
        "from drupe_checkpoints.kind import HfKind; from drupe_model_builder.build_decoder import BuildDecoder; "
        f"model = HfKind().load(Model('hf', Path({str(folder)!r}))); "
        "print(BuildDecoder().refuse(model), 'parameters' in HfKind().describe(model), "
        "[name for name in ('numpy', 'onnx_ir', 'huggingface_hub') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None True []"


def test_importing_entry_modules_loads_nothing_heavy() -> None:
    code = (
        "import sys, drupe_model_builder.plugin, drupe_huggingface.plugin; "
        "print('numpy' in sys.modules or 'pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model.layers.1.mlp.up_proj.weight": None}, r"lacks a tensor .*model\.layers\.1\.mlp\.up_proj\.weight"),
        ({"model.layers.0.self_attn.k_proj.bias": None}, r"lacks .*self_attn\.k_proj\.bias"),
        ({"model.norm.weight": (31,)}, r"model\.norm\.weight has the shape \[31\], .* requires \[32\]"),
        ({"model.layers.0.self_attn.q_proj.weight": (32, 16)}, r"shape \[32, 16\].*\[32, 32\]"),
        ({"model.layers.0.self_attn.o_proj.bias": (32,)}, r"json lacks: model\.layers\.0\.self_attn\.o_proj\.bias"),
        ({"model.layers.2.mlp.up_proj.weight": (48, 32)}, r"config\.json lacks: model\.layers\.2"),
    ],
)
def test_the_error_for_a_tensor_that_does_not_fit_the_configuration_names_it(
    changed: dict[str, Any], message: str, tmp_path: Path, cpu: Target
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        build(write_checkpoint(tmp_path, changed=changed), cpu)
    assert caught.value.cure


def test_derived_buffers_in_a_checkpoint_are_ignored(tmp_path: Path, cpu: Target) -> None:
    build(write_checkpoint(tmp_path, changed={"model.layers.0.self_attn.rotary_emb.inv_freq": (8,)}), cpu)


def test_integer_weights_are_refused(tmp_path: Path, cpu: Target) -> None:
    with pytest.raises(ModelError, match="holds int32, not floating-point"):
        build(write_checkpoint(tmp_path, dtype="I32"), cpu)


def test_a_checkpoint_without_a_head_that_is_not_tied_says_so(tmp_path: Path, cpu: Target) -> None:
    folder = write_checkpoint(tmp_path, {**SMALL, "tie_word_embeddings": False}, changed={"lm_head.weight": None})
    with pytest.raises(ModelError, match=r"lacks a tensor .*lm_head\.weight") as caught:
        build(folder, cpu)
    assert "tie_word_embeddings" in str(caught.value.cure)


def test_a_tied_checkpoint_gets_one_matrix_if_its_files_have_both_or_only_the_head(tmp_path: Path, cpu: Target) -> None:
    graph = graph_of(build(write_checkpoint(tmp_path, changed={"lm_head.weight": (32, 32)}), cpu))
    assert "lm_head.weight" not in graph.initializers
    only_head = {"lm_head.weight": (32, 32), "model.embed_tokens.weight": None}
    graph = graph_of(build(write_checkpoint(tmp_path, changed=only_head), cpu))
    assert expression_of(graph.initializers["model.embed_tokens.weight"]).name == "lm_head.weight"


def test_queries_keys_and_values_of_different_types_are_packed_in_float32(tmp_path: Path, cpu: Target) -> None:
    folder = write_checkpoint(tmp_path)
    name = "model.layers.0.self_attn.q_proj.weight"
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    header[name]["dtype"] = "F16"
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    packed = expression_of(graph_of(build(folder, cpu)).initializers["model.layers.0.self_attn.qkv_proj.weight"])
    assert isinstance(packed, Transpose)
    assert isinstance(packed.source, Concat)
    assert packed.dtype == ir.DataType.FLOAT


def test_activations_that_the_target_lacks_are_refused(tmp_path: Path, cpu: Target) -> None:
    with pytest.raises(UsageError, match="does not compute in bfloat16"):
        build(write_checkpoint(tmp_path), cpu, activations="bfloat16")


def test_a_target_without_attention_is_refused(tmp_path: Path, kit: SimpleNamespace) -> None:
    bare = Target("other", "", kit.everything(GroupQueryAttention=None))
    with pytest.raises(PlanError, match="GroupQueryAttention for float32"):
        build(write_checkpoint(tmp_path), bare)


def test_refuse_raises_the_errors_of_a_conversion_before_it(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    weights = folder / "model.safetensors"

    def refused(message: str) -> None:
        with pytest.raises(ModelError, match=message) as caught:
            BuildDecoder().refuse(Model("hf", folder))
        assert caught.value.cure

    BuildDecoder().refuse(Model("hf", folder))
    (folder / "tokenizer.json").unlink()
    refused(r"no tokenizer\.json")
    weights.write_bytes(weights.read_bytes()[:-1])
    refused("cut short|bytes")
    weights.rename(folder / "pytorch_model.bin")
    refused("pickles")
    (folder / "config.json").write_text(json.dumps({**SMALL, "model_type": "qwen4"}))
    refused("not supported")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", json.dumps({**SMALL, "model_type": "qwen4"}), "not supported"),
        ("tokenizer.json", None, "no tokenizer"),
    ],
)
def test_an_unsupported_checkpoint_is_refused_before_weights_are_downloaded(
    name: str, content: str | None, message: str, tmp_path: Path, cpu: Target
) -> None:
    folder = write_checkpoint(tmp_path)
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_text(content)
    snapshot: Any = SimpleNamespace(fetch_weights=lambda: pytest.fail("weights were asked for"))
    model = Model("hf", folder, payload=open_checkpoint(folder, snapshot))
    with pytest.raises(ModelError, match=message):
        BuildDecoder().run(model, BuildDecoderConfig(), Context(cpu, tmp_path))


def test_a_head_size_that_no_attention_takes_needs_a_target_that_pads(tmp_path: Path, kit: SimpleNamespace) -> None:
    config = {**SMALL, "model_type": "llama", "head_dim": 20}
    with pytest.raises(PlanError, match="has no Pad for float32 activations, which heads of 20 elements need"):
        build(write_checkpoint(tmp_path, config), Target("other", "1", kit.everything(Pad=None)))
