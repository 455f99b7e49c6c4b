"""Adapters that peft makes with random values, and what peft's own merging gives for them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SEED = 11


def make_adapter(folder: Path, base: Path, config: Any, seed: int = SEED) -> Path:
    """An adapter for a checkpoint, with random values in all that it trains."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        torch.manual_seed(seed)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.copy_(torch.randn(parameter.shape) * 0.2 + (1.0 if parameter.ndim == 1 else 0.0))
        model.save_pretrained(str(folder))
    return folder


def merged_by_peft(base: Path, adapters: Sequence[Path], dtype: str = "float32") -> Mapping[str, np.ndarray]:
    """The parameters of the model with its adapters, one merged after the other, by transformers' names."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
        for folder in adapters:
            model = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    return {name: value.float().numpy() for name, value in model.state_dict().items()}
