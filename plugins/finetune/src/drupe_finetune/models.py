"""The model of a checkpoint, as transformers makes it, with its values or without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drupe.api import ModelError, counted
from drupe_checkpoints.wording import listed


def is_linear(module: Any) -> bool:
    return type(module).__name__ in ("Linear", "PackedLinear", "Conv1D")


def empty_model(folder: Path, dtype: Any = None) -> Any:
    """The checkpoint's model without values. dtype: of torch; None for the checkpoint's own.

    Raises ModelError where transformers has no such model.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        stated = AutoConfig.from_pretrained(folder, local_files_only=True)
        with init_empty_weights(include_buffers=False):
            return AutoModelForCausalLM.from_config(stated, **({} if dtype is None else {"dtype": dtype}))
    except (ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise ModelError(
            f"transformers cannot make a model for text of this checkpoint: {reason}",
            where=folder,
            cure="train a decoder that transformers knows, or install a newer transformers",
        ) from error


def loaded_model(folder: Path, dtype: Any) -> Any:
    """The checkpoint's model. Raises ModelError where weights are missing: transformers would make random ones."""
    from transformers import AutoModelForCausalLM

    model, found = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, local_files_only=True, output_loading_info=True
    )
    if missing := sorted(found["missing_keys"]):
        raise ModelError(
            f"the checkpoint lacks {counted(len(missing), 'tensor')} of the model: {listed(missing)}",
            where=folder,
            cure="download the checkpoint again, or save it again with save_pretrained()",
        )
    return model
