"""What fits: the cure for a plan that its target would not run, found by trying other precisions and providers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from drupe.api import Unfit, replace

if TYPE_CHECKING:
    from drupe.api import ExecutionProvider, Request


@contextmanager
def with_what_fits(request: Request, written: str = "--{} {}") -> Iterator[None]:
    """Let the error of a model that the target would not run say which other targets would, where one does.

    A newer version of the runtime, which the error itself names, is another way.
    written: how the user writes "precision" or "provider", and its value.
    """
    try:
        yield
    except Unfit as error:
        from drupe_onnx import OldRuntime

        ways = [error.cure] if error.cure and isinstance(error, OldRuntime) else []
        ways += _what_fits(request, written)
        error.cure = ", or ".join(ways) or error.cure
        raise


def _what_fits(request: Request, written: str) -> Iterator[str]:
    """The options with which the request can be carried out. Providers without a device here are the last resort."""
    from drupe.api import default_provider, registry, target_of

    found = registry()
    wanted = found.provider(request.provider) if request.provider else default_provider(found)
    others = [precision for precision in _precisions(wanted) if precision != request.precision]
    if precisions := [each for each in others if _fits(replace(request, precision=each))]:
        yield written.format("precision", " or ".join(precisions))
    providers = [(target_of(each, found).here, each) for _, each in found.sound_providers() if each.name != wanted.name]
    for place in (True, False):
        if ways := [way for here, each in providers if here is place for way in _on(each, request, written)]:
            yield from ways
            return


def _on(provider: ExecutionProvider, request: Request, written: str) -> Iterator[str]:
    """The option that chooses a provider, with the first precision that fits where it does not have the request's."""
    own = _precisions(provider)
    kept = request.precision in own
    for precision in (request.precision,) if kept else own:
        if _fits(replace(request, provider=provider.name, precision=precision)):
            chosen = written.format("provider", provider.name)
            yield chosen if kept else f"{chosen} {written.format('precision', precision)}"
            return


def _precisions(provider: ExecutionProvider) -> list[str]:
    return list(dict.fromkeys(recipe.precision for recipe in provider.recipes()))


def _fits(request: Request) -> bool:
    """Whether a request can be carried out, as far as that is known before the work."""
    from drupe.api import DrupeError, plan_of, registry
    from drupe_commands.previewing import preview_of

    try:
        return not preview_of(*plan_of(request, registry())).problems
    except DrupeError:
        return False
