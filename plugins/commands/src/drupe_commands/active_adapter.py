"""A package with one of its adapters active, for what measures packages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drupe.api import RECORD, UsageError


@contextmanager
def with_active(package: str, adapter: str | None) -> Iterator[str]:
    """A folder that computes what the package does while an adapter is active; the package itself without one.

    The folder's record says that the adapter is merged, so it is compared with the source that has it merged.
    """
    if adapter is None:
        yield package
        return
    from drupe.api import registry, resolve_package
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
            (copy / RECORD).write_text(_record(model.location / RECORD, source), encoding="utf-8")
        yield str(copy)


def _record(path: Path, adapter: str | None) -> str:
    """The package's record, with an adapter merged into its source. adapter: its folder; None where it is not known."""
    from drupe_checkpoints.adapters.switched import options_with_one

    record = json.loads(path.read_text(encoding="utf-8"))
    source = record["plan"]["source"]
    source["options"] = options_with_one(source["options"], adapter)
    return json.dumps(record)


def refuse_kept(adapter: str | None, keep: bool) -> None:
    """Raise UsageError where what is measured with an adapter would be kept as the package's own."""
    if keep and adapter is not None:
        what = f"--keep keeps what is measured of the package itself, not of its adapter {adapter}"
        raise UsageError(what, cure="leave --keep or --adapter out")
