"""Decoders whose tokens read later ones give the hidden states that transformers gives, without padding and with it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import decoder_families
import numpy as np
import pytest
from tiny import edit_config

from drupe.api import ModelError, PlanError, Target, registry, target_of
from drupe_checkpoints import open_checkpoint
from drupe_model_builder.describing import described
from drupe_model_builder.finding import composition_of

LENGTHS = (23, 9, 14)
"""Of the texts: longer than every window, and than the YaRN model's first context."""
BY_KEY = (
    "llama", "mistral", "bloom", "gemma2", "gpt_oss", "deepseek_v2", "gemma4_text, small", "bamba",
    "gemma3n_text", "llama4_text", "zamba2",
)  # fmt: skip
"""Cases of all kinds of attention, of windows, biases by distance, sinks and recurrences beside attention."""
OWN_KEYS = {
    "gemma3_text": {"use_bidirectional_attention": True},
    "gemma4_text": {"use_bidirectional_attention": "all"},
    "gemma4_text, small": {"use_bidirectional_attention": "all"},
}
CASES = [
    *((name, {"is_causal": False}) for name in BY_KEY),
    *OWN_KEYS.items(),
    *((name, {}) for name in decoder_families.EMBEDDERS),
]


@pytest.mark.parametrize(("name", "keys"), CASES, ids=[f"{name} {list(keys)}" for name, keys in CASES])
def test_hidden_states_agree_with_transformers(
    name: str, keys: dict[str, Any], kit: SimpleNamespace, tmp_path: Path
) -> None:
    import onnxruntime
    import torch
    from transformers import AutoModel

    checkpoint, reference = decoder_families.make(name, tmp_path)
    for folder in {checkpoint, reference}:
        without_head(folder, **keys)
    model = AutoModel.from_pretrained(reference, dtype=torch.float32).eval()

    def expected(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            given = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
            found: np.ndarray = model(**given, use_cache=False).last_hidden_state.numpy()
        return found

    session = onnxruntime.InferenceSession(kit.build(checkpoint, processor(), tmp_path / "out") / "model.onnx")

    def ours(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        found: np.ndarray = session.run(["last_hidden_state"], {"input_ids": ids, "attention_mask": mask})[0]
        return found

    ids, mask = texts()
    wanted = expected(ids, mask)
    agree(ours(ids, mask)[mask == 1], wanted[mask == 1])
    alone = ids[1:2, : LENGTHS[1]]
    agree(ours(alone, np.ones_like(alone)), expected(alone, np.ones_like(alone)))
    agree(ours(alone, np.ones_like(alone))[0], wanted[1, : LENGTHS[1]])
    moved, shown = (np.stack([np.roll(row, -length) for row, length in zip(each, LENGTHS, strict=True)])
                    for each in (ids, mask))  # fmt: skip
    agree(ours(moved, shown)[shown == 1], wanted[mask == 1])
    changed = ids.copy()
    changed[0, LENGTHS[0] - 1] += 1
    assert np.abs(ours(changed, mask)[0, :3] - wanted[0, :3]).max() > 1e-6, "early tokens do not read late ones"


def texts() -> tuple[np.ndarray, np.ndarray]:
    """Tokens of three texts with padding on the right, and their mask."""
    chosen = np.random.default_rng(0)
    ids, mask = np.full((len(LENGTHS), max(LENGTHS)), 7), np.zeros((len(LENGTHS), max(LENGTHS)), np.int64)
    for row, length in enumerate(LENGTHS):
        ids[row, :length], mask[row, :length] = chosen.integers(8, 200, length), 1
    return ids, mask


def agree(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def without_head(folder: Path, **keys: Any) -> None:
    """Let the class in config.json be one without a head."""
    named = json.loads((folder / "config.json").read_text())["architectures"]
    plain = [name.replace("ForCausalLM", "Model").replace("LMHeadModel", "Model") for name in named]
    edit_config(folder, architectures=plain, **keys)


def processor() -> Target:
    """onnxruntime's processor, with the table of the installed version."""
    found = registry()
    return target_of(found.provider("cpu"), found)


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "deepseek_v2"])
def test_such_a_model_cannot_generate_text(name: str, tmp_path: Path) -> None:
    folder, _ = decoder_families.make(name, tmp_path)
    edit_config(folder, **OWN_KEYS.get(name, {"is_causal": False}))
    with pytest.raises(ModelError, match="reads later ones, so it cannot write one after another") as raised:
        composition_of(open_checkpoint(folder))
    assert "modules.json" in raised.value.cure
    without_head(folder)
    groups = described(composition_of(open_checkpoint(folder)))["layer groups"]
    assert groups and all("in both directions" in each["text"] for each in groups)
    assert all(part["both directions"] for each in groups for part in each["parts"] if "attention" in part["part"])


def test_targets_whose_attention_reads_earlier_tokens_only_are_refused(kit: SimpleNamespace, tmp_path: Path) -> None:
    from drupe_onnx import KernelSupport

    folder = kit.make_checkpoint(tmp_path / "source", "llama")
    without_head(folder, is_causal=False)
    causal = kit.everything(GroupQueryAttention=KernelSupport(attributes={"causal": (1,)}))
    with pytest.raises(PlanError, match="no GroupQueryAttention for float32 activations with later tokens"):
        kit.build(folder, Target("old", "1", causal), tmp_path / "out")


def test_gemma_4_wants_a_known_word(tmp_path: Path) -> None:
    folder, _ = decoder_families.make("gemma4_text", tmp_path)
    edit_config(folder, use_bidirectional_attention="al")
    with pytest.raises(ModelError, match='"all", "vision" or null, not "al"'):
        composition_of(open_checkpoint(folder))
