"""What fits: the cure for a plan that its target would not run, found by trying other precisions and providers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from drupe.api import Unfit

if TYPE_CHECKING:
    from drupe.api import Request


@contextmanager
def with_what_fits(request: Request, written: str = "--{} {}") -> Iterator[None]:
    """Let the error of a model that the target would not run say which other targets would, where one does.

    A plugin that knows better what would help raises another error.
    written: how the user writes "precision" or "provider", and its value.
    """
    try:
        yield
    except Unfit as error:
        error.cure = _what_fits(request, written) or error.cure
        raise


def _what_fits(request: Request, written: str) -> str:
    """The options with which the request can be carried out; "" where it can with none."""
    from drupe.api import default_provider, registry

    found = registry()
    offered = default_provider(found)
    wanted = found.provider(request.provider) if request.provider else offered
    others = dict.fromkeys(recipe.precision for recipe in wanted.recipes() if recipe.precision != request.precision)
    precisions = [each for each in others if _fits(replace(request, precision=each))]
    cures = [written.format("precision", " or ".join(precisions))] if precisions else []
    if offered.name != wanted.name and _fits(replace(request, provider=offered.name)):
        cures.append(written.format("provider", offered.name))
    return ", or ".join(cures)


def _fits(request: Request) -> bool:
    """Whether a request can be carried out, as far as that is known before the work."""
    from drupe.api import DrupeError, plan_of, registry
    from drupe_commands.previewing import preview_of

    try:
        return not preview_of(*plan_of(request, registry())).problems
    except DrupeError:
        return False
