"""A package with one of its adapters active, for what measures packages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from drupe.api import RECORD, UsageError


@contextmanager
def with_active(package: str, adapter: str | None, against: str | None = None) -> Iterator[str]:
    """A folder that computes what the package does while an adapter is active; the package itself without one.

    The folder's record says that the adapter is merged, so it is compared with the source that has it merged.
    against: what it is going to be compared with. Raises UsageError where that needs an adapter that is gone.
    """
    if adapter is None:
        yield package
        return
    from drupe.api import registry, resolve_package
    from drupe_checkpoints.adapters.switched import options_with_one
    from drupe_files import scratch
    from drupe_onnx.adapted_copy import write_adapted_copy
    from drupe_onnx.switching import switching_in

    model = resolve_package(package, registry())
    with scratch() as folder:
        copy = folder / "package"
        copy.mkdir()
        write_adapted_copy(model, adapter, copy)
        if (model.location / RECORD).is_file():
            switching = switching_in(model.location)
            source = None if switching is None else switching.sources.get(adapter)
            record = json.loads((model.location / RECORD).read_text(encoding="utf-8"))
            if against is not None and Path(against).expanduser().absolute() == Path(_source(record)["reference"]):
                _refuse_gone(adapter, source)
            _source(record)["options"] = options_with_one(_source(record)["options"], source)
            (copy / RECORD).write_text(json.dumps(record), encoding="utf-8")
        yield str(copy)


def _refuse_gone(adapter: str, source: str | None) -> None:
    """Raise UsageError where an adapter's matrices are not there any more, so that nothing can be compared with."""
    if source is not None and not Path(source).is_dir():
        raise UsageError(
            f"the adapter {adapter} was made of {source}, which is not there any more",
            cure="make the package again; drupe generate and drupe benchmark do not need it",
        )


def _source(record: dict[str, Any]) -> dict[str, Any]:
    """What a package's record says of its source, which may be changed there."""
    source: dict[str, Any] = record["plan"]["source"]
    return source


def refuse_kept(adapter: str | None, keep: bool) -> None:
    """Raise UsageError where what is measured with an adapter would be kept as the package's own."""
    if keep and adapter is not None:
        what = f"--keep keeps what is measured of the package itself, not of its adapter {adapter}"
        raise UsageError(what, cure="leave --keep or --adapter out")
