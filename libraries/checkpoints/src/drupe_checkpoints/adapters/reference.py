"""An adapter as a user names it: a folder or a hub id, and a weight after a colon ("DIR:0.5")."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from drupe.api import Model, ModelError, Record, UsageError
from drupe_checkpoints.adapters.configuration import CONFIG

FACT = "adapters"
"""The fact that names a model's adapters, as JSON, so that the model is the same in another process."""
WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
POINT_AT_AN_ADAPTER = f"name a folder with {CONFIG} and {WEIGHTS}, as peft's save_pretrained() makes it"


class AdapterReference(Record):
    """A folder with an adapter, and what its changes are multiplied by."""

    folder: Path
    weight: float = 1.0

    @property
    def files(self) -> tuple[Path, Path]:
        """The files that the merged weights depend on."""
        return self.folder / CONFIG, self.folder / WEIGHTS

    def __str__(self) -> str:
        return str(self.folder) if self.weight == 1 else f"{self.folder}:{self.weight:g}"


Fetch = Callable[[str], Path | None]
"""Downloads an adapter by its hub id, and gives its folder; None for what is no hub id."""


def typed_adapters(typed: Iterable[Path | str] | Path | str, fetch: Fetch) -> tuple[AdapterReference, ...]:
    """The adapters that a user has named. Raises UsageError for a weight without effect, ModelError for no adapter."""
    several = (typed,) if isinstance(typed, str | Path) else tuple(typed)
    found = tuple(_typed(str(each), fetch) for each in several)
    folders = [each.folder for each in found]
    if twice := next((each for each in folders if folders.count(each) > 1), None):
        raise UsageError(f"--adapter names {twice} twice", cure=f"--adapter {twice}:2 takes its changes twice")
    return found


def _typed(text: str, fetch: Fetch) -> AdapterReference:
    name, weight = divided(text)
    if weight is None:
        return AdapterReference(adapter_folder(text, fetch))
    number = _number(weight)
    if number is None:
        raise UsageError(f"'{weight}' is not the weight of an adapter", where=name, cure=f"--adapter {name}:0.5")
    if number == 0:
        raise UsageError(f"--adapter {text} has no effect: its weight is 0", cure="leave it out")
    return AdapterReference(adapter_folder(name, fetch), number)


def divided(text: str) -> tuple[str, str | None]:
    """The folder or the hub id, and what stands for its weight, in DIR:0.5; None where nothing does."""
    name, colon, weight = text.rpartition(":")
    is_weight = _number(weight) is not None or Path(name).expanduser().is_dir()
    if colon and is_weight and not Path(text).expanduser().exists():
        return name, weight
    return text, None


def adapter_folder(name: str, fetch: Fetch) -> Path:
    """The folder of an adapter that is named by a path or a hub id. Raises ModelError where there is none."""
    folder = Path(name).expanduser()
    fetched = None if folder.exists() else fetch(name)
    return _complete(folder.absolute() if fetched is None else fetched)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _complete(folder: Path) -> Path:
    """The folder, where an adapter lies in it."""
    if not folder.is_dir():
        raise ModelError(f"there is no adapter {folder}", cure=POINT_AT_AN_ADAPTER)
    if not (folder / CONFIG).is_file():
        raise ModelError(f"the folder holds no adapter: there is no {CONFIG}", where=folder, cure=POINT_AT_AN_ADAPTER)
    if not (folder / WEIGHTS).is_file():
        if (folder / PICKLED).is_file():
            what = (
                f"the adapter's weights are a pickle ({PICKLED}), which drupe does not read: reading one can run code"
            )
            raise ModelError(what, where=folder, cure="save it again with peft's save_pretrained()")
        raise ModelError(f"the adapter has no weights: there is no {WEIGHTS}", where=folder, cure=POINT_AT_AN_ADAPTER)
    return folder


def as_fact(adapters: Iterable[AdapterReference]) -> Mapping[str, str]:
    """The facts of a model with these adapters; none without adapters."""
    listed = [[str(each.folder), each.weight] for each in adapters]
    return {FACT: json.dumps(listed)} if listed else {}


def adapters_of(model: Model) -> tuple[AdapterReference, ...]:
    """The adapters of a model, by its fact."""
    stated = next((facts[FACT] for facts in model.parts.values() if FACT in facts), "[]")
    return tuple(AdapterReference(Path(folder), weight) for folder, weight in json.loads(stated))
