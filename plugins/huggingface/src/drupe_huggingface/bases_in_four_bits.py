"""Adapters that were trained on a base in 4 bits, as the files of their folders say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import ModelError, Notice
from drupe_files import json_object, unreadable

if TYPE_CHECKING:
    from drupe_checkpoints.adapters.reference import AdapterReference
    from drupe_checkpoints.adapters.switched import SwitchedAdapter

NOTE, BASE_NOTE = "finetune.json", "quantized_base.json"
"""The file of an adapter that says how it was trained; and of a checkpoint that is the quantized base of one."""
AGAIN = "copy the folder again, or train the adapter again: the file says which weights it was trained on"
HANDLED = {"--adapter": "merged", "--adapters": "beside the base"}
"""By the flag that names an adapter, what becomes of it."""


def bases_in_four_bits(
    adapters: Sequence[AdapterReference | SwitchedAdapter], folder: Path, flag: str
) -> Iterator[Notice]:
    """What to know of adapters that were trained on a base in 4 bits, where the model in `folder` gets them.

    flag: that names them. Raises ModelError for an adapter that belongs to quantized weights, which the model does not
    have: together with others, it makes a model worse. Also for a damaged file, which may say that.
    """
    for adapter in adapters:
        base = _read(adapter.folder / NOTE).get("base")
        if not isinstance(base, dict) or not base:
            continue
        held = f"weights in {base.get('bits', 4)} bits ({base.get('quantizer', 'unknown quantizer')})"
        if base.get("init") != "loftq":
            yield Notice(
                "adapter",
                HANDLED[flag],
                f"{adapter.folder.name} was trained on {held}; the weights of this model differ from them by the error "
                "of rounding",
            )
        elif base.get("id") != _read(folder / BASE_NOTE).get("id"):
            own = adapter.folder / "base"
            raise ModelError(
                f"the adapter belongs to {held} with LoftQ, and this model has other weights",
                where=adapter.folder,
                cure=f"drupe optimize {own} {flag} {adapter.folder}" if own.is_dir() else "name its own base",
            )


def _read(path: Path) -> dict[str, Any]:
    """The object of a JSON file; empty where there is none. Raises ModelError for a file that is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise unreadable(path, error) from error
    return json_object(content, path.name, path, AGAIN)
