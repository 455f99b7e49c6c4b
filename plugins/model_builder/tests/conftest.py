"""Tiny random checkpoints of each architecture, and a target with the table of onnxruntime's own kernels."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
from tiny import edit_config

from drupe.api import Context, Model, Target
from drupe_onnx import Capabilities, KernelSupport, Operator
from drupe_onnx.traits import IN_MEMORY

TINY = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def make_checkpoint(folder: Path, model_type: str, dtype: str = "float32", **settings: Any) -> Path:
    """A checkpoint of these tests' own size."""
    return tiny.make_checkpoint(folder, model_type, dtype, **{**TINY, **settings})


def everything(*, in_memory: bool = True, **refused: Any) -> Capabilities:
    """Capabilities for every operator of the graph. Those given by name have another KernelSupport, or None."""
    types = {
        "com.microsoft::GroupQueryAttention": ("T", "T", "T", "T", "T", "M", "M", "T"),
        "com.microsoft::SkipSimplifiedLayerNormalization": ("T",),
        "SimplifiedLayerNormalization": ("T",),
        "com.microsoft::FusedMatMul": ("T",),
        "Cos": ("T",),
        "Pad": ("T", "I", "T"),
        "Range": ("I", "I", "I"),
        "ReduceMin": ("I", "I"),
        "Sin": ("T",),
        "TopK": ("I", "I"),
    }
    operators = {}
    for name, inputs in types.items():
        kernel = refused.get(name.rpartition(":")[2], KernelSupport({}))
        if kernel is not None:
            operators[name] = Operator(inputs, ("T",), (kernel,))
    return Capabilities(">=1", operators, ("float32", "float16"), {IN_MEMORY: in_memory})


def build(folder: Path, target: Target, out: Path, **config: Any) -> Path:
    """Build the checkpoint's graph and write the package."""
    from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig
    from drupe_onnx import write_package

    out.mkdir()
    context = Context(target, out, threads=2)
    built = BuildDecoder().run(Model("hf", folder), BuildDecoderConfig(**config), context)
    write_package(built.payload, out, context)
    return out


class Stepper:
    """Runs a package's graph step by step in plain onnxruntime, rows padded on one side, caches fed back."""

    def __init__(self, package: Path, rows: int = 1, side: str = "right") -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(package / "model.onnx", options, ["CPUExecutionProvider"])
        self.inputs = {each.name: each for each in self.session.get_inputs()}
        self.side = side
        self.lengths = np.zeros(rows, np.int64)
        self.mask = np.zeros((rows, 0), np.int64)
        self.past = {
            name: np.zeros(
                (rows, *(0 if size == "past" else size for size in each.shape[1:])),
                "f2" if "float16" in each.type else "f4",
            )
            for name, each in self.inputs.items()
            if name.startswith("past")
        }

    def __call__(self, new: Sequence[Sequence[int]]) -> np.ndarray:
        """Logits of the given tokens of each row."""
        ids, mask = (self._rows([[*each] for each in rows]) for rows in (new, [[1] * len(row) for row in new]))
        self.mask = np.concatenate([self.mask, mask], 1)
        feed = {"input_ids": ids, "attention_mask": self.mask, **self.past}
        if "position_ids" in self.inputs:
            feed["position_ids"] = np.maximum(self.mask.cumsum(1) - 1, 0)[:, -ids.shape[1] :]
        names = [each.name for each in self.session.get_outputs()]
        results = dict(zip(names, self.session.run(names, feed), strict=True))
        self.past = {name: results[name.replace("past_key_values", "present")] for name in self.past}
        self.lengths += [len(row) for row in new]
        return results["logits"]

    def _rows(self, rows: list[list[int]]) -> np.ndarray:
        width = max(map(len, rows))
        return np.array([self._padded(row, [0] * (width - len(row))) for row in rows])

    def _padded(self, row: list[int], padding: list[int]) -> list[int]:
        return padding + row if self.side == "left" else row + padding


FORGETFUL = frozenset({"falcon_mamba", "jamba", "mamba", "minimax", "recurrent_gemma"})
"""Families of which transformers 5.23 forgets in a later call with several tokens what came before."""


class Reference:
    """The same in transformers, one row at a time and without padding."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, DynamicCache

        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.takes = inspect.signature(self.model.forward).parameters
        self.cache = "past_key_values" if "past_key_values" in self.takes else "cache_params"  # without attention
        # RecurrentGemma does not return its cache.
        own = self.model.config.model_type == "recurrent_gemma"
        self.past, self.length = (DynamicCache(config=self.model.config) if own else None), 0
        self.told: list[int] = []
        """All tokens so far, for models without a cache."""

    def __call__(self, new: Sequence[int]) -> np.ndarray:
        """Logits [tokens, vocabulary]."""
        import torch

        if self.length and len(new) > 1 and self.model.config.model_type in FORGETFUL:
            return np.concatenate([self([token]) for token in new])
        if self.cache not in self.takes:
            self.told += new
            with torch.no_grad():
                return self.model(torch.tensor([self.told])).logits[0, -len(new) :].numpy()
        given = {self.cache: self.past}
        if "position_ids" in self.takes:  # some models count from 0 in every call without them
            given["position_ids"] = torch.arange(self.length, self.length + len(new))[None]
        with torch.no_grad():
            out = self.model(torch.tensor([list(new)]), use_cache=True, **given)
        self.past, self.length = out.get(self.cache, self.past), self.length + len(new)
        return out.logits[0].numpy()


@pytest.fixture(scope="session")
def cpu() -> Target:
    """onnxruntime's own kernels, as far as the builder asks: no q/k norm inside attention, no float16 FusedMatMul."""
    gqa = KernelSupport({"T": frozenset(["float32", "float16"])}, refused=(14, 15))
    table = everything(GroupQueryAttention=gqa, FusedMatMul=KernelSupport({"T": frozenset(["float32"])}))
    return Target("cpu", "1.32.0", table)


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The helpers of this file; test modules cannot import one another."""
    return SimpleNamespace(
        make_checkpoint=make_checkpoint,
        edit_config=edit_config,
        everything=everything,
        build=build,
        Stepper=Stepper,
        Reference=Reference,
    )
