"""The error for an option that no plugin declares, or with a value that is not one of its choices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import UsageError, unknown

if TYPE_CHECKING:
    from drupe.api import Registry, Request


def refuse_undeclared(request: Request, found: Registry) -> None:
    """Raise UsageError for an option that no plugin declares, and for a value that is not one of its choices."""
    for name, value in request.options.items():
        if name not in found.options:
            error = unknown("option", name, found.options)
            error.what += found.why_missing(name)
            raise error
        try:
            found.options[name].refuse(value)
        except UsageError as error:
            error.what += found.why_missing(name)
            raise
