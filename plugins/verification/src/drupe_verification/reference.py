"""The reference that a package is compared with: its source, imported in floats as the package's own plan did."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drupe.api import (
    RECORD,
    ExecutionProvider,
    InProcess,
    Job,
    Model,
    Observers,
    PlanError,
    Registry,
    Request,
    default_provider,
    new_id,
    target_of,
)
from drupe_files import FolderCache, key_of, scratch, shared_folder
from drupe_verification.accounting import refuse_unread_tensors
from drupe_verification.made_by import MadeBy
from drupe_verification.switched_adapters import without_switched


@contextmanager
def reference_for(
    against: Model | None,
    model: Model,
    provider: ExecutionProvider,
    found: Registry,
    parent: str,
    made_by: MadeBy,
) -> Iterator[Model | None]:
    """The model to compare a package with. A package of Drupe is used directly; any other model is imported in floats.

    made_by: how the package's own plan imported the source, and trained it. The user's choices there decide what the
    model computes, so the reference is made in the same way.
    A graph of another exporter may have nodes that the target does not run, or lack what a comparison needs. Then the
    graph itself is used.
    Raises CheckFailed where the imported reference does not read all that the source stores: see `accounting`.
    """
    if against is None or (found.kinds.make(against.kind).runnable and (against.location / RECORD).is_file()):
        yield against
        return
    against = without_switched(against)
    try:
        maker, precision = float_recipe(provider, found)
        request = Request(str(against.location), precision=precision, verify=False)
        plan = found.planner().compose(request, against, maker, target_of(maker, found))
        plan = made_by.alike(plan)
    except PlanError:
        if against.kind != model.kind:
            raise
        yield against
        return
    key = key_of({"plan": plan.model_dump(mode="json"), "of": against.note(), "at": str(against.location)})
    with _folder_for(key) as folder, FolderCache() as cache:
        made = _MADE.get(folder)
        if made is None:
            job = Job(plan, against, new_id(), folder, parent=parent, emit=Observers(found))
            made = InProcess(cache).run(job)
            if not made_by.trainings:  # trained weights lie in files of their own
                refuse_unread_tensors(against, made)
        if shared_folder() is None:
            yield made
            return
        _MADE.clear()
        _MADE[folder] = made
        yield found.kinds.make(made.kind).fork(made)


_MADE: dict[Path, Model] = {}
"""The reference that was made last, by the folder of its files, where comparisons share one."""


@contextmanager
def _folder_for(key: str) -> Iterator[Path]:
    """A folder for the files of a reference; where comparisons share one, it stays with the shared folder."""
    if (shared := shared_folder()) is None:
        with scratch() as folder:
            yield folder
        return
    folder = shared / f"reference-{os.getpid()}-{key}"
    if not folder.is_dir():
        _MADE.pop(folder, None)  # of another shared folder at the same place
        folder.mkdir()
    yield folder


def float_recipe(provider: ExecutionProvider, found: Registry) -> tuple[ExecutionProvider, str]:
    """A recipe that quantizes nothing: the provider's own, or that of a provider that the machine offers.

    Without one there is an error, because a package must never be compared with itself.
    """
    for maker in (provider, default_provider(found)):
        for recipe in maker.recipes():
            if recipe.precision == maker.reference_precision and not recipe.quantizes:
                return maker, recipe.precision
    raise PlanError(
        f"neither '{provider.name}' nor another installed provider has a float recipe to compare with",
        cure="pip install drupe-ep-cpu",
    )
