"""Accounting for a checkpoint's tensors: what a package is compared with must read each of them.

The reference is made by the same passes as the package, so a tensor that they leave out, or take from the wrong file,
would be missing on both sides of the comparison, and the comparison would find nothing. Therefore the checkpoint's
files are listed here once more, by a reader that shares no code with those passes.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from drupe.api import CheckFailed, Model
from drupe_checkpoints.wording import listed

if TYPE_CHECKING:
    from drupe_checkpoints.stored_tensors import StoredTensor
    from drupe_onnx import OnnxPackage

Span = tuple[int, int]  # the first byte, and the byte after the last
# Buffers that follow from the configuration: older versions of transformers saved them. rope_freqs.weight is a setting
# that GGUF files keep as a tensor.
ROTARY = r"rotary_emb\.(inv_freq|cos_cached|sin_cached)"
DERIVED = re.compile(rf".*\.({ROTARY}|self_attn\.(masked_)?bias)|rope_freqs\.weight")
HEADS = re.compile(r"(.*\.)?(lm_head|embed_out|output_layer|output)\.(weight|bias)")
"""Heads of decoders. A model of embeddings has none, and transformers reads none for it either."""
EMBEDDINGS = "feature-extraction"
OF_USES = re.compile(r"(?P<before>.*layers)\.\d+(?P<behind>\.shared_transformer\..*_adapter_list\.\d+\..*)")
"""What adapters have for the small matrices of shared blocks: each use of a block has those of all uses, and runs its
own."""
REPORT = "please report this with the model's config.json and the names of its files"


def refuse_unread_tensors(source: Model, reference: Model) -> None:
    """Raise CheckFailed where `reference`, a graph that was not written, does not read what `source` stores.

    Only for checkpoints in safetensors and GGUF files that the graph reads lazily. A tensor need not be read if its
    numbers follow from others: it equals a tensor that is read (a tied head), is a bias of zeros, or is a buffer of the
    rotary embedding. Nor need one of a module that the graph says it leaves out.
    """
    from drupe_checkpoints.stored_tensors import FLOATS, stored_in_adapter, stored_tensors
    from drupe_onnx import OnnxPackage

    if source.kind != "hf" or not isinstance(reference.payload, OnnxPackage):
        return
    stored, read = stored_tensors(source.location), _read(reference.payload)
    if stored is None or not read:
        return
    added = [each for folder in _adapters(source) for each in stored_in_adapter(folder)]
    stored = {name: each for name, each in stored.items() if not _is_replaced(each, added)}
    stored |= {f"{each.path.parent}: {each.name}": each for each in added}
    files = {tensor.path.resolve() for tensor in stored.values()}
    if foreign := sorted({path.name for path in read.keys() - files}):
        raise CheckFailed(
            f"weights were read from {listed(foreign)}, which is not what transformers loads from {source.location}",
            cure=REPORT,
        )
    taken = [each for each in stored.values() if _whole(each, read)]
    known = {id(each) for each in taken}
    packed = source.location.is_file()  # each tensor of a GGUF file holds weights, whatever its type
    beside = _left_out(reference.payload)
    unread = [
        each
        for each in stored.values()
        if (packed or each.element in FLOATS)
        and id(each) not in known
        and not any(map(f"{each.name}.".startswith, beside))
    ]
    if source.task == EMBEDDINGS:
        unread = [each for each in unread if not HEADS.fullmatch(each.name)]
    run = {key for each in taken if (key := _of_use(each.name))}
    unread = [each for each in unread if not any(each is other for other in added) or _of_use(each.name) not in run]
    if left := [each.name for each in unread if not _follows(each, taken)]:
        raise CheckFailed(f"the checkpoint's {listed(left)} is not part of the converted model", cure=REPORT)


def _adapters(source: Model) -> list[Path]:
    """The folders of the adapters that are merged into the source."""
    return [Path(folder) for facts in source.parts.values() for folder, _ in json.loads(facts.get("adapters", "[]"))]


def _is_replaced(tensor: StoredTensor, added: Iterable[StoredTensor]) -> bool:
    """Whether an adapter holds a tensor of this name and shape whole, which counts instead."""
    for each in added:
        own = each.name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        ends = own == tensor.name or own.endswith(f".{tensor.name}") or tensor.name.endswith(f".{own}")
        if ends and each.shape == tensor.shape:
            return True
    return False


def _of_use(name: str) -> tuple[str, str] | None:
    """What a tensor of an adapter is called in all uses of a shared block; None for others."""
    found = OF_USES.fullmatch(name)
    return None if found is None else (found["before"], found["behind"])


def _left_out(reference: OnnxPackage) -> tuple[str, ...]:
    """How the names of tensors begin that belong to other parts of the model: towers of images, ..."""
    from drupe_onnx import LEFT_OUT

    listed = (json.loads(each.metadata_props.get(LEFT_OUT, "[]")) for each in reference.components.values())
    return tuple(f"{name}." for names in listed for name in names)


def _read(reference: OnnxPackage) -> Mapping[Path, list[Span]]:
    """The bytes of safetensors files that the graph's weights are read from: by file, joined where they touch.

    One tensor may be read in parts, such as one expert at a time.
    """
    from drupe_onnx import SafetensorsTensor, expression_of, initializers_of
    from drupe_onnx.expressions.origins import sources

    found: defaultdict[Path, set[Span]] = defaultdict(set)
    for component in reference.components.values():
        for value in initializers_of(component):
            if (expression := expression_of(value)) is None:
                continue
            for source in sources(expression):
                if isinstance(source, SafetensorsTensor):
                    found[source.path.resolve()].add((source.offset, source.offset + source.nbytes))
    return {path: joined(spans) for path, spans in found.items()}


def joined(spans: Iterable[Span]) -> list[Span]:
    """The same bytes in as few spans as possible, in order."""
    result: list[Span] = []
    for start, stop in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(stop, result[-1][1]))
        else:
            result.append((start, stop))
    return result


def _whole(tensor: StoredTensor, read: Mapping[Path, list[Span]]) -> bool:
    """Whether each byte of a tensor is read."""
    spans = read.get(tensor.path.resolve(), [])
    at = bisect_right(spans, tensor.offset, key=lambda span: span[0]) - 1
    return at >= 0 and tensor.offset + tensor.nbytes <= spans[at][1]


def _follows(tensor: StoredTensor, taken: Iterable[StoredTensor]) -> bool:
    """Whether the numbers of a tensor are known without reading it."""
    if DERIVED.fullmatch(tensor.name):
        return True
    if len(tensor.shape) == 1 and tensor.name.endswith(".bias") and tensor.is_zero():
        return True
    return any(tensor.equals(other) for other in taken)
