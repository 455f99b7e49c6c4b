"""The error for an option that no plugin declares, or with a value that is not one of its choices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import UsageError, several, unknown

if TYPE_CHECKING:
    from drupe.api import Registry, Request


def refuse_undeclared(request: Request, found: Registry) -> None:
    """Raise UsageError for an option that no plugin declares, and for a value that is empty or none of its choices."""
    for name, value in request.options.items():
        if name not in found.options:
            error = unknown("option", name, found.options)
            error.what += found.why_missing(name)
            raise error
        option = found.options[name]
        if "" in several(value):
            raise UsageError(
                f"{option.typed(value)} is empty", cure=f"leave {option.typed(value)} out, or give it a value"
            )
        try:
            option.refuse(value)
        except UsageError as error:
            error.what += found.why_missing(name)
            raise
