"""Accounting for a checkpoint's tensors: what a package is compared with must read each of them.

The reference is made by the same passes as the package, so a tensor that they leave out, or take from the wrong file,
would be missing on both sides of the comparison, and the comparison would find nothing. Therefore the checkpoint's
files are listed here once more, by a reader that shares no code with those passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from drupe.api import CheckFailed, Model

if TYPE_CHECKING:
    from drupe_checkpoints.stored_tensors import StoredTensor
    from drupe_onnx import OnnxPackage

# Buffers that follow from the configuration: older versions of transformers saved them.
DERIVED = re.compile(r".*\.(rotary_emb\.(inv_freq|cos_cached|sin_cached)|self_attn\.(masked_)?bias)")
SHOWN = 3
REPORT = "please report this with the model's config.json and the names of its files"


def refuse_unread(source: Model, reference: Model) -> None:
    """Raise CheckFailed where `reference`, a graph that was not written, does not read what `source` stores.

    Only for checkpoints in safetensors files that the graph reads lazily. A tensor need not be read if its numbers
    follow from others: it equals a tensor that is read (a tied head), is a bias of zeros, or is a buffer of the rotary
    embedding.
    """
    from drupe_checkpoints.stored_tensors import FLOATS, stored_tensors
    from drupe_onnx import OnnxPackage

    if source.kind != "hf" or not source.location.is_dir() or not isinstance(reference.payload, OnnxPackage):
        return
    stored, read = stored_tensors(source.location), _places(reference.payload)
    if stored is None or not read:
        return
    places = {tensor.place for tensor in stored.values()}
    if foreign := sorted({path.name for path, _ in read - places}):
        raise CheckFailed(
            f"weights were read from {_listed(foreign)}, which is not what transformers loads from {source.location}",
            cure=REPORT,
        )
    unread = [each for each in stored.values() if each.element in FLOATS and each.place not in read]
    taken = [each for each in stored.values() if each.place in read]
    if left := [each.name for each in unread if not _follows(each, taken)]:
        raise CheckFailed(f"the checkpoint's {_listed(left)} is not part of the converted model", cure=REPORT)


def _places(reference: OnnxPackage) -> set[tuple[Path, int]]:
    """Where the graph's weights lie in safetensors files."""
    from drupe_onnx import SafetensorsTensor, expression_of, initializers_of
    from drupe_onnx.expressions.origins import sources

    return {
        (source.path.resolve(), source.offset)
        for component in reference.components.values()
        for value in initializers_of(component)
        if (expression := expression_of(value)) is not None
        for source in sources(expression)
        if isinstance(source, SafetensorsTensor)
    }


def _follows(tensor: StoredTensor, taken: Iterable[StoredTensor]) -> bool:
    """Whether the numbers of a tensor are known without reading it."""
    if DERIVED.fullmatch(tensor.name):
        return True
    if len(tensor.shape) == 1 and tensor.name.endswith(".bias") and tensor.is_zero():
        return True
    return any(tensor.equals(other) for other in taken)


def _listed(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
