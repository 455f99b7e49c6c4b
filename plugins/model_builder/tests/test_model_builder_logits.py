"""Graphs of tiny random checkpoints compute what transformers computes: prefill and cached steps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from drupe.api import Target
from drupe_onnx import KernelSupport

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 32}
PROMPT = [5, 71, 33, 90, 12, 12, 48, 7, 66, 23, 81]
STEPS = ([17], [4, 4, 58], [60])

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": False}),
    "llama-tied-biases-head-dim": (
        "llama",
        {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "head_dim": 32},
    ),
    "llama-all-heads": ("llama", {"num_key_value_heads": 4, "rms_norm_eps": 1e-3}),
    "llama-3.1": ("llama", {"rope_parameters": LLAMA3}),
    "llama-linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0}}),
    "llama-yarn": ("llama", {"rope_parameters": YARN}),
    "llama-odd-head-dim": ("llama", {"head_dim": 24}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2-windows": ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "qwen3": ("qwen3", {"tie_word_embeddings": True, "head_dim": 32}),
    "qwen3-biases": ("qwen3", {"attention_bias": True, "head_dim": 16}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral-window": ("mistral", {"sliding_window": 5, "head_dim": 32}),
    "granite": (
        "granite",
        {
            "embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.4, "attention_multiplier": 0.2,
            "tie_word_embeddings": True,
        },
    ),
    "gelu": ("llama", {"hidden_act": "gelu_pytorch_tanh"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(kit: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Path] = {}

    def checkpoint(name: str) -> Path:
        if name not in made:
            kind, settings = MODELS[name]
            made[name] = kit.make_checkpoint(tmp_path_factory.mktemp(name) / "checkpoint", kind, **settings)
        return made[name]

    return checkpoint


@pytest.mark.parametrize("name", MODELS)
def test_prefill_and_cached_steps_agree_with_transformers(
    name: str, checkpoints: Any, kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    folder = checkpoints(name)
    package = kit.build(folder, cpu, tmp_path / "out", weights="float32", all_logits=True)
    stepper, reference = kit.Stepper(package), kit.Reference(folder)
    for new in (PROMPT, *STEPS):
        expected = reference(new)
        assert expected.std() > 0.1  # otherwise equal logits would prove nothing
        np.testing.assert_allclose(stepper([new])[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "llama-odd-head-dim"])
def test_rows_of_a_padded_batch_agree_with_unpadded_rows_in_transformers(
    name: str, checkpoints: Any, kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    """Padding is on the right, as onnxruntime-genai pads; the last token's logits are each row's own."""
    folder = checkpoints(name)
    stepper = kit.Stepper(kit.build(folder, cpu, tmp_path / "out", weights="float32"), rows=3)
    references = [kit.Reference(folder) for _ in range(3)]
    for new in ([PROMPT[:4], PROMPT, PROMPT[3:9]], [[8], [19], [70]], [[44], [2], [3]]):
        expected = np.stack([reference(row)[-1:] for reference, row in zip(references, new, strict=True)])
        logits = stepper(new)
        assert logits.shape == (3, 1, 96)
        np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["qwen2", "qwen3"])
def test_last_token_graphs_give_the_same_logits_and_caches_as_all_logits_graphs(
    name: str, checkpoints: Any, kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    folder = checkpoints(name)
    last = kit.Stepper(kit.build(folder, cpu, tmp_path / "last", weights="float32"))
    every = kit.Stepper(kit.build(folder, cpu, tmp_path / "all", weights="float32", all_logits=True))
    for new in (PROMPT, *STEPS):
        np.testing.assert_allclose(last([new]), every([new])[:, -1:], atol=1e-5)
    for name, cache in every.past.items():
        np.testing.assert_allclose(last.past[name], cache, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("qwen3", {"SkipSimplifiedLayerNormalization": None, "FusedMatMul": None}),
        ("qwen3", {"SkipSimplifiedLayerNormalization": None, "SimplifiedLayerNormalization": None}),
        ("llama-3.1", {"GroupQueryAttention": KernelSupport({}, required=(1, 2))}),
        ("qwen2-windows", {"GroupQueryAttention": KernelSupport({}, required=(1, 2), refused=(7, 8))}),
        ("qwen3", {"GroupQueryAttention": KernelSupport({}, attributes={"do_rotary": (0,)}, refused=(14, 15))}),
    ],
)
def test_operators_that_a_target_lacks_are_built_from_others(
    name: str, refused: dict[str, KernelSupport | None], checkpoints: Any, kit: SimpleNamespace, tmp_path: Path
) -> None:
    """The graphs with replaced operators also run on this machine and give the same logits."""
    folder = checkpoints(name)
    norms_apart = {"GroupQueryAttention": KernelSupport({}, refused=(14, 15)), **refused}
    target = Target("other", "1.32.0", kit.everything(**norms_apart))
    package = kit.build(folder, target, tmp_path / "out", weights="float32")
    stepper, reference = kit.Stepper(package), kit.Reference(folder)
    for new in (PROMPT, *STEPS):
        np.testing.assert_allclose(stepper([new])[0], reference(new)[-1:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize(("weights", "tolerance"), [("float16", 0.01), ("bfloat16", 0.1)])
def test_weights_stored_in_16_bits_compute_nearly_the_same(
    name: str, weights: str, tolerance: float, checkpoints: Any, kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    folder = checkpoints(name)
    package = kit.build(folder, cpu, tmp_path / "out", weights=weights)
    full = kit.build(folder, cpu, tmp_path / "full", weights="float32")
    assert (package / "model.onnx.data").stat().st_size < 0.6 * (full / "model.onnx.data").stat().st_size
    stepper, reference = kit.Stepper(package), kit.Reference(folder)
    for new in (PROMPT, *STEPS):
        difference = np.abs(stepper([new])[0] - reference(new)[-1:]).max()
        assert 0 < difference < tolerance


@pytest.mark.parametrize("name", ["llama-tied-biases-head-dim", "qwen3", "granite"])
def test_float16_activations_give_float32_logits(
    name: str, checkpoints: Any, kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    """The graph of a target that computes in float16; onnxruntime casts around what it has no float16 kernel for."""
    folder = checkpoints(name)
    stepper = kit.Stepper(kit.build(folder, cpu, tmp_path / "out", weights="float16", activations="float16"))
    assert all(cache.dtype == np.float16 for cache in stepper.past.values())
    reference = kit.Reference(folder)
    for new in (PROMPT, *STEPS):
        logits = stepper([new])[0]
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, reference(new)[-1:], atol=0.05, rtol=0)
