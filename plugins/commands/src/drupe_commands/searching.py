"""Searches: workflows with several values where one is wanted, which plugins carry out."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import UsageError, asdict, call
from drupe_commands.asking import first_answer

if TYPE_CHECKING:
    from drupe.api import Entry, Request
    from drupe_commands.making import Making

HOOK = "drupe_searchers"


class FoundSearch:
    """A search that a plugin finds in a workflow."""

    def __init__(self, entry: Entry[Any], search: Any) -> None:
        self._entry = entry
        self._search = search

    def check(self, request_of: Callable[[dict[str, Any]], Request]) -> None:
        """Raise the error of what a workflow cannot ask for, such as an option that does not exist."""
        self._call(self._search.check, request_of)

    def show(self, as_json: bool) -> None:
        """Print what would be searched."""
        if as_json:
            print(json.dumps(self._call(self._search.document), indent=1))
        else:
            print("\n".join(self._call(self._search.lines)))

    def carry_out(self, request_of: Callable[[dict[str, Any]], Request], output: Path, making: Making) -> None:
        """Search, make the package that is chosen, and print what was found."""
        from drupe_commands.messages import tell
        from drupe_commands.summing_up import show_outcome
        from drupe_console import progress

        found = self._call(
            self._search.carry_out, request_of, output, force=making.force, progress=progress(), say=tell
        )
        if making.as_json:
            told = {"outcome": asdict(found.outcome), **self._call(found.document)}
            print(json.dumps(told, indent=1, default=str))
            return
        print("\n".join(self._call(found.lines)))
        print()
        show_outcome(found.outcome, found.plan)

    def _call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return call(self._entry.plugin, f"a search with {self._entry.title}", function, *arguments, **named)


def search_in(document: dict[str, Any], file: str) -> FoundSearch | None:
    """The search of the first plugin that finds one in a workflow; None where there is nothing to search.

    Raises UsageError where the workflow asks for a search and no plugin searches.
    """
    found = first_answer("searcher", HOOK, lambda entry: _by(entry, document))
    if found is None and document.get("search") is not None:
        raise UsageError(
            "the file asks for a search, and no installed plugin searches",
            where=f"{file}, at search",
            cure="pip install 'drupe[search]', or take the key `search` out",
        )
    return found


def _by(entry: Entry[Any], document: dict[str, Any]) -> FoundSearch | None:
    """The search that one plugin finds."""
    function: Any = entry.resolve()
    own = copy.deepcopy(document)  # the next searcher is to see what stands in the file
    search = call(entry.plugin, f"reading a workflow with {entry.title}", function, own)
    return None if search is None else FoundSearch(entry, search)
