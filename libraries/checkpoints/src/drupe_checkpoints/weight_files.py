"""The weight files of a checkpoint's folder: which are read, and notices on the others and on a useless index.

As in transformers, model.safetensors comes first, then the shards of the index; nothing else is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import Notice, counted
from drupe_checkpoints.summary import INDEX, NOT_THE_MODEL, SINGLE, names_in, shards_of
from drupe_checkpoints.wording import listed

if TYPE_CHECKING:
    from drupe_checkpoints.checkpoint import Checkpoint

ADAPTER_CONFIG = "adapter_config.json"
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".npz"})
NOT_WEIGHTS = ("training_args", "optimizer", "scheduler", "rng_state", "random_states", "trainer_state", "tokenizer")
"""The beginnings of names of what a training run keeps beside the weights."""


def files_read(folder: Path) -> set[str]:
    """The names of the files that hold the model."""
    if (folder / SINGLE).is_file():
        return {SINGLE}
    if (folder / INDEX).is_file():
        return shards_of(folder)
    found = [path.name for path in folder.glob("*.safetensors") if not path.name.startswith(NOT_THE_MODEL)]
    return set(found) if len(found) == 1 else set()


def weight_file_notices(checkpoint: Checkpoint) -> Iterator[Notice]:
    """What of the folder's weights is read, where it could be something else."""
    folder = checkpoint.folder
    read = files_read(folder)
    if not read:
        return
    yield from _index_beside(folder)
    yield from _unusual_name(read)
    yield from _adapter_alone(folder)
    yield from _left_out(folder, read)
    yield from _stored_twice(folder, read)


def _index_beside(folder: Path) -> Iterator[Notice]:
    """An index beside a whole model.safetensors."""
    if not (folder / SINGLE).is_file() or not (folder / INDEX).exists():
        return
    if problem := _problem(folder / INDEX):
        yield Notice(
            "weights",
            "chosen",
            f"{SINGLE} is read, as in transformers, and not {INDEX}; the index is broken: {problem}",
            f"remove {INDEX}; or download the shards and the index again, and move {SINGLE} out of the folder",
        )
        return
    indexed = shards_of(folder) - {SINGLE}
    if not indexed:
        return
    missing = sorted(name for name in indexed if not (folder / name).is_file())
    yield Notice(
        "weights",
        "chosen",
        f"{SINGLE} is read, as in transformers, and not {counted(len(indexed), 'file')} that {INDEX} names"
        + (f", of which {listed(missing)} {_is(missing)} missing" if missing else ""),
        f"to convert the other weights, {'download what is missing and ' if missing else ''}move {SINGLE} out of the "
        f"folder; otherwise remove {INDEX}",
    )


def _stored_twice(folder: Path, read: Set[str]) -> Iterator[Notice]:
    """Tensors that several shards hold. The index does not decide which one is taken."""
    if len(read) < 2:
        return
    homes: dict[str, str] = {}
    twice: dict[str, tuple[str, str]] = {}
    for file in sorted(read):
        for name in names_in(folder / file):
            if name in homes:
                twice[name] = (homes[name], file)
            homes[name] = file
    if twice:
        name, (first, last) = min(twice.items())
        yield Notice(
            "weights",
            "chosen",
            f"{first} and {last} both hold the tensor {name}"
            + (f", and so with {len(twice) - 1} more" if len(twice) > 1 else "")
            + f"; that of {last} is taken, the last file, as in transformers",
            "download the index and the shards again, from one revision",
        )


def _problem(index: Path) -> str:
    """Why an index cannot be used; empty for one that can."""
    try:
        content: Any = json.loads(index.read_bytes())
    except OSError as error:
        return error.strerror or "it cannot be read"
    except (ValueError, RecursionError):
        return "it is not JSON"
    if not isinstance(content, dict) or "weight_map" not in content:
        return "it lacks weight_map"
    names = content["weight_map"]
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        return "weight_map does not name a file for each tensor"
    return "" if names else "weight_map is empty"


def _unusual_name(read: set[str]) -> Iterator[Notice]:
    """A lone file under another name, without an index."""
    (name, *others) = sorted(read)
    if not others and name != SINGLE and not name.startswith("model-"):
        yield Notice(
            "weights",
            "chosen",
            f"{name} is read, the only weights of the folder; transformers would find none, because it looks for "
            f"{SINGLE} or {INDEX}",
            f"rename the file to {SINGLE} if transformers should read it too",
        )


def _adapter_alone(folder: Path) -> Iterator[Notice]:
    """An adapter's weights without its configuration."""
    found = [name for name in ADAPTERS if (folder / name).is_file()]
    if found and not (folder / ADAPTER_CONFIG).is_file():
        yield Notice(
            "adapter",
            "left out",
            f"{listed(found)} is an adapter's weights, which are not applied; transformers does not apply them "
            f"either, because there is no {ADAPTER_CONFIG}",
            f"if the adapter belongs to the model, add its {ADAPTER_CONFIG} and merge it: --adapter {folder}; "
            "otherwise remove the file",
        )


def _left_out(folder: Path, read: set[str]) -> Iterator[Notice]:
    """Other files with weights. Those that an index names beside model.safetensors are told with the index."""
    known = read | shards_of(folder) | set(ADAPTERS)
    others = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix in WEIGHTS
        and path.name not in known
        and not path.name.startswith((".", *NOT_WEIGHTS))
        and path.is_file()
    ]
    if not others:
        return
    decides = SINGLE if SINGLE in read else INDEX if (folder / INDEX).is_file() else "the only file of its kind"
    gguf = [path.name for path in others if path.suffix == ".gguf"]
    names = [path.name for path in others]
    yield Notice(
        "weights",
        "left out",
        f"{listed(names)} {_is(names)} not read, as in transformers: {decides} decides",
        f"to convert {gguf[0]}, name the file itself: drupe optimize {folder / gguf[0]}"
        if gguf
        else f"remove {'the file' if len(names) == 1 else 'the files'} if left over from another model",
    )


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
