"""The adapters of a package: each does the model's task while it is active, and is compared with its own source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from drupe.api import CheckFailed, Model, Session
from drupe_files import scratch

Answer = Mapping[str, Any]
"""Some fields of Check."""


def names_of(package: Model) -> tuple[str, ...]:
    """The adapters that a package switches between."""
    from drupe_onnx.switching import adapters_in

    return tuple(adapters_in(package.location)) if package.kind == "onnx" else ()


def without_switched(source: Model) -> Model:
    """The base model alone, where adapters lie beside it: it is what a package computes while none is active."""
    if source.kind != "hf":
        return source
    from drupe_checkpoints.adapters.switched import with_one

    return with_one(source, None)


def try_each(session: Session, package: Model, check: Callable[[], object]) -> None:
    """Check the task once with each adapter. Raises CheckFailed, which names the adapter, and leaves none active."""
    names = names_of(package)
    if not names:
        return
    use: Callable[[str | None], None] | None = getattr(session, "use_adapter", None)
    if use is None:
        raise CheckFailed(f"the package has the adapters {', '.join(names)}, and its session cannot switch to one")
    for name in names:
        with naming(name):
            use(name)
            check()
    use(None)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Let an error of the check say with which adapter it came."""
    try:
        yield
    except CheckFailed as error:
        error.what = f"with the adapter '{name}', {error.what}"
        raise


def compared_each(
    package: Model, source: Model, compare: Callable[[str, Model], Answer], base: Answer
) -> dict[str, Any]:
    """The comparison of the base model, and those of all adapters added to it.

    compare: of a package, by its folder, and a source.
    """
    names = names_of(package)
    if not names or base.get("not_compared") is not None:
        return dict(base)
    from drupe_onnx.adapted_copy import write_adapted_copy
    from drupe_onnx.switching import WITH_ADAPTER

    answer = dict(base)
    for name in names:
        with scratch() as folder, naming(name):
            copy = Path(folder) / "package"
            copy.mkdir()
            write_adapted_copy(package, name, copy)
            found = compare(str(copy), _with_adapter(source, package, name, Path(folder) / "source"))
        if (why := found.get("not_compared")) is not None:
            return {**answer, "not_compared": f"with the adapter {name}: {why}"}
        for field in ("metrics", "units"):
            more = {f"{metric}{WITH_ADAPTER}{name}": value for metric, value in found[field].items()}
            answer[field] = {**answer[field], **more}
    return answer


def _with_trained(source: Model, package: Model) -> Model:
    """The source with the package's adapters beside it, also those that a pass of the package's plan has trained."""
    from drupe_checkpoints.adapters.switched import SwitchedAdapter, as_switched_fact, switched_of
    from drupe_onnx.switching import switching_in

    switching = switching_in(package.location)
    sources = {} if switching is None else switching.sources
    known = [each.name for each in switched_of(source)]
    trained = [SwitchedAdapter(name, Path(folder)) for name, folder in sources.items() if name not in known]
    return source.but(facts=as_switched_fact([*switched_of(source), *trained]), payload=None)


def _with_adapter(source: Model, package: Model, name: str, folder: Path) -> Model:
    """The source with one of the package's adapters in it: merged into a checkpoint, or put into a copy of a package.

    folder: for the copy. A source without the adapter stays: it has it in its graph.
    """
    if source.kind == "hf":
        from drupe_checkpoints.adapters.switched import with_one

        return with_one(_with_trained(source, package), name)
    if name not in names_of(source):
        return source
    from drupe_onnx.adapted_copy import write_adapted_copy

    folder.mkdir()
    write_adapted_copy(source, name, folder)
    return source.but(location=folder, payload=None)
