"""GGUF files become packages with the same levels and scales. Files with contradictions are refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from gguf_files import GgufFile, gguf_of
from plain_decoders import decoder_feed, exactly_computing
from tiny import make_checkpoint

import drupe
from drupe.api import ModelError, UsageError

PROMPT = [3, 77, 130, 9, 9, 250, 41]
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": False},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"tie_word_embeddings": False, "head_dim": 32},
}

WITH_TEMPLATES = {
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.chat_template": "{{ messages[0]['content'] }}",
    "tokenizer.chat_templates": ["tool_use", "../out"],
    "tokenizer.chat_template.tool_use": "{{ tools | tojson }}",
    "tokenizer.chat_template.../out": "not a file",
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {name: make_checkpoint(folder / name, name, **more) for name, more in MODELS.items()}


def expected_logits(source: Path, folder: Path, values: dict[str, np.ndarray]) -> np.ndarray:
    """Logits from transformers, of the model with the values of the file."""
    import torch
    from safetensors.numpy import save_file
    from transformers import AutoModelForCausalLM

    folder.mkdir()
    (folder / "config.json").write_text((source / "config.json").read_text())
    save_file(values, folder / "model.safetensors", {"format": "pt"})
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([PROMPT])).logits[0, -1].numpy()


def logits(package: Path) -> np.ndarray:
    """Logits of the package, with float activations in its products."""
    session = onnxruntime.InferenceSession(
        exactly_computing(package) / "model.onnx", providers=["CPUExecutionProvider"]
    )
    return session.run(["logits"], decoder_feed(session, PROMPT))[0][0, -1]


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
@pytest.mark.parametrize("name", MODELS)
def test_blocks_are_kept_unchanged(checkpoints: dict[str, Path], tmp_path: Path, name: str, kind: str) -> None:
    made = gguf_of(checkpoints[name], kind)
    path = made.write(tmp_path / "model.gguf")
    drupe.optimize(path, tmp_path / "out")
    model = ir.load(tmp_path / "out" / "model.onnx")
    assert "drupe.quantized_again" not in model.metadata_props
    data = (tmp_path / "out" / "model.onnx.data").stat().st_size
    assert data <= 1.1 * sum(content.nbytes for _, _, content in made.tensors.values()) + 256 * 16 * 8  # rotary tables
    expected = expected_logits(checkpoints[name], tmp_path / "float", made.values())
    np.testing.assert_allclose(logits(tmp_path / "out"), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["F16", "F32", "Q4_1", "Q4_0"])
def test_a_float_package_has_the_values_of_the_file(checkpoints: dict[str, Path], tmp_path: Path, kind: str) -> None:
    made = gguf_of(checkpoints["llama"], kind, ends="F16")
    drupe.optimize(made.write(tmp_path / "model.gguf"), tmp_path / "out", precision="fp32", verify=False)
    expected = expected_logits(checkpoints["llama"], tmp_path / "float", made.values())
    np.testing.assert_allclose(logits(tmp_path / "out"), expected, atol=1e-4)


def test_the_runtime_computes_with_the_minimums_and_no_product_of_them_is_stored(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """The package holds levels, scales and minimums of the file. The runtime computes the rest once, at the start."""
    made = gguf_of(checkpoints["llama"], "Q4_1")
    drupe.optimize(made.write(tmp_path / "model.gguf"), tmp_path / "out", verify=False)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", options, providers=["CPUExecutionProvider"])
    operators = {node.op_type for node in ir.load(tmp_path / "optimized.onnx").graph}
    assert {"MatMulNBits", "ReduceSum"} <= operators and "Transpose" not in operators
    stored = ir.load(tmp_path / "out" / "model.onnx").graph.initializers
    minimums = [value for name, value in stored.items() if name.endswith("_minimums")]
    assert len(minimums) == 2 * 5 + 2
    assert {value.dtype for value in minimums} == {ir.DataType.FLOAT16}


@pytest.mark.parametrize("options", [{"quality": "best"}, {"max_kl": 0.5}])
def test_minimums_are_kept_by_passes_that_measure_and_calibrate(
    checkpoints: dict[str, Path], tmp_path: Path, options: dict[str, Any]
) -> None:
    made = gguf_of(checkpoints["llama"], "Q4_1")
    drupe.optimize(made.write(tmp_path / "model.gguf"), tmp_path / "out", **options)
    expected = expected_logits(checkpoints["llama"], tmp_path / "float", made.values())
    np.testing.assert_allclose(logits(tmp_path / "out"), expected, atol=1e-4)


def test_a_smaller_block_size_than_that_of_blocks_with_a_minimum_is_refused(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    path = gguf_of(checkpoints["llama"], "Q4_1").write(tmp_path / "model.gguf")
    with pytest.raises(UsageError, match="in blocks of 32"):
        drupe.optimize(path, tmp_path / "out", block_size=16)


def test_blocks_with_a_minimum_are_quantized_again_for_targets_without_constant_folding(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    path = gguf_of(checkpoints["llama"], "Q4_1", ends="F16").write(tmp_path / "model.gguf")
    drupe.optimize(path, tmp_path / "out", provider="cuda", verify=False)
    again = json.loads(ir.load(tmp_path / "out" / "model.onnx").metadata_props["drupe.quantized_again"])
    assert len(again) == 2 * 5


def test_the_tokenizer_of_the_file_equals_that_of_the_checkpoint(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    made = gguf_of(checkpoints["llama"], "Q8_0")
    made.metadata |= WITH_TEMPLATES
    path = made.write(tmp_path / "model.gguf")
    drupe.optimize(path, tmp_path / "out", verify=False)
    ours = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    theirs = Tokenizer.from_file(str(checkpoints["llama"] / "tokenizer.json"))
    for text in ("def parse(text): return [go]", "Ünïcode\n\n  naïve 123<|end|><|user|>hi", ""):
        assert ours.encode(text).ids == theirs.encode(text).ids
        assert ours.decode(theirs.encode(text).ids) == theirs.decode(theirs.encode(text).ids)
    assert "messages[0]" in (tmp_path / "out" / "chat_template.jinja").read_text()
    assert [path.read_text() for path in tmp_path.glob("out/*/*.jinja")] == ["{{ tools | tojson }}"]


def test_a_tokenizer_of_another_kind_must_lie_beside_the_file(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    made = gguf_of(checkpoints["llama"], "Q8_0")
    made.metadata["tokenizer.ggml.model"] = "llama"
    path = made.write(tmp_path / "model.gguf")
    with pytest.raises(ModelError, match="tokenizer of the kind 'llama'") as caught:
        drupe.optimize(path, tmp_path / "out")
    assert "beside the file" in (caught.value.cure or "")
    (tmp_path / "tokenizer.json").write_bytes((checkpoints["llama"] / "tokenizer.json").read_bytes())
    drupe.optimize(path, tmp_path / "out", verify=False)


def test_factors_of_llama_3_are_recognised() -> None:
    from drupe_checkpoints import Configuration
    from drupe_checkpoints.gguf.settings import _llama3

    found = _llama3(llama3_factors(64, 500000.0, 32.0), 500000.0, Configuration(Path("x.gguf"), {}))
    assert (found["rope_type"], found["factor"]) == ("llama3", 32.0)
    with pytest.raises(ModelError, match=r"rotary scaling in 'rope_freqs\.weight' is not supported"):
        _llama3((2.0,) * 64, 500000.0, Configuration(Path("x.gguf"), {}))


def llama3_factors(pairs: int, theta: float, factor: float) -> tuple[float, ...]:
    """The factors by which transformers changes the frequencies."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {"rope_type": "llama3", "rope_theta": theta, "factor": factor, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip
    config = LlamaConfig(hidden_size=2 * pairs, num_attention_heads=1, rope_parameters=rope)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1.0 / theta ** (np.arange(0, 2 * pairs, 2) / (2 * pairs))
    return tuple(float(value) for value in plain / scaled.numpy())


def _set(key: str, value: Any) -> Callable[[GgufFile], None]:
    return lambda made: made.metadata.update({key: value})


def _shape(name: str, *shape: int) -> Callable[[GgufFile], None]:
    def change(made: GgufFile) -> None:
        kind, _, content = made.tensors[name]
        made.tensors[name] = kind, shape, content

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("general.architecture", "gemma"), "architecture 'gemma' are not supported"),
        (_set("split.count", 3), "split into several files"),
        (_set("llama.expert_count", 8), "sets expert_count = 8"),
        (_set("llama.rope.scaling.type", "longrope"), "rotary scaling 'longrope'"),
        (_set("llama.rope.dimension_count", 8), "rotates 8 of"),
        (_set("llama.pooling_type", 3), "gives embeddings or scores"),
        (_set("llama.attention.head_count", 3), "num_attention_heads = 3"),
        (_set("llama.block_count", 3), "lacks .* tensors"),
        (_set("general.alignment", 7), "alignment is 7"),
        (_set("tokenizer.ggml.pre", "tekken"), "splits text by the rules 'tekken'"),
        (_shape("blk.0.ffn_up.weight", 1 << 40, 64), "overlaps|after the file's end"),
        (_shape("blk.0.ffn_up.weight", 96, 65), r"has the impossible shape \[96, 65\]"),
        (_shape("blk.0.ffn_up.weight", 2, 48, 64), "is not a matrix"),
        (_shape("blk.0.ffn_up.weight", 48, 64), r"up_proj.weight has the shape \[48, 64\]"),
        (_shape("blk.1.attn_k.weight", 31, 64), "31 rows for 2 heads"),
    ],
)
def test_the_error_for_an_unsupported_file_names_the_reason(
    checkpoints: dict[str, Path], tmp_path: Path, change: Callable[[GgufFile], None], message: str
) -> None:
    made = gguf_of(checkpoints["llama"], "Q8_0")
    change(made)
    with pytest.raises(ModelError, match=message):
        drupe.optimize(made.write(tmp_path / "model.gguf"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("length", [0, 3, 20, 100, 5000, -1])
def test_a_file_that_is_cut_short_is_refused(checkpoints: dict[str, Path], tmp_path: Path, length: int) -> None:
    path = gguf_of(checkpoints["llama"], "Q8_0").write(tmp_path / "model.gguf")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelError, match=r"model\.gguf"):
        drupe.optimize(path, tmp_path / "out")


@pytest.mark.parametrize(("offset", "form"), [(8, "Q"), (16, "Q"), (24, "Q"), (4, "I")])
def test_absurd_counts_are_refused_immediately(
    checkpoints: dict[str, Path], tmp_path: Path, offset: int, form: str
) -> None:
    path = gguf_of(checkpoints["llama"], "Q8_0").write(tmp_path / "model.gguf")
    content = bytearray(path.read_bytes())
    struct.pack_into(f"<{form}", content, offset, (1 << 8 * struct.calcsize(form)) - 1)
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not a sound GGUF file"):
        drupe.optimize(path, tmp_path / "out")


def test_the_error_for_an_unsupported_type_names_it(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    made = gguf_of(checkpoints["llama"], "Q8_0")
    content = made.write(tmp_path / "model.gguf").read_bytes()
    name = b"blk.0.ffn_up.weight"
    at = content.index(name) + len(name) + 4 + 16
    changed = content[:at] + struct.pack("<I", 12) + content[at + 4 :]
    (tmp_path / "model.gguf").write_bytes(changed)
    with pytest.raises(ModelError, match="of type Q4_K; supported"):
        drupe.optimize(tmp_path / "model.gguf", tmp_path / "out")


def test_inspect_describes_a_file(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    from drupe.api import Model
    from drupe_checkpoints.kind import HfKind
    from drupe_model_builder.build_decoder import BuildDecoder

    path = gguf_of(checkpoints["qwen2"], "Q4_0").write(tmp_path / "model.gguf")
    described = HfKind().describe(Model("hf", path))
    assert described["architecture"] == "Qwen2ForCausalLM"
    assert "Q4_0" in described["element types"]
    BuildDecoder().refuse(Model("hf", path))
    first = HfKind().fingerprint(Model("hf", path), thorough=False)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert HfKind().fingerprint(Model("hf", path), thorough=False) != first
    assert HfKind().size(Model("hf", path)) == len(content)
