"""Workflow files of other tools: what plugins make of them, and how it is printed."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import PluginError, Record, UsageError, asdict, call, timed, unknown
from drupe_commands.asking import first_answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from drupe.api import Entry, Notice

HOOK = "drupe_workflow_readers"
MISSING = "missing"
HANDLINGS = ("kept", "changed", "left out", MISSING)


class Translation(Record):
    """A workflow file of another tool as one of Drupe. workflow: None where something is missing.

    tool: whose file it is. notices: what is done about each thing that the file asks for.
    """

    tool: str
    workflow: dict[str, Any] | None
    notices: tuple[Notice, ...]

    @property
    def missing(self) -> list[Notice]:
        return [notice for notice in self.notices if notice.handling == MISSING]

    def needed(self, file: str) -> dict[str, Any]:
        """The workflow. Raises UsageError where the file cannot be carried out whole."""
        if self.workflow is not None:
            return self.workflow
        first, *others = self.missing
        more = f", and {len(others)} more" if others else ""
        raise UsageError(
            f"the file asks for what Drupe does not do: {first.what}{more}",
            where=f"{file}, at {first.about}",
            cure=f"{first.cure or 'leave it out'}; drupe run {file} --dry-run lists all",
        )


def translation_of(document: dict[str, Any], model: str | None) -> Translation | None:
    """What the first plugin that knows the document makes of it; None where no plugin does."""
    return first_answer("workflow reader", HOOK, lambda entry: _by(entry, document, model))


def _by(entry: Entry[Any], document: dict[str, Any], model: str | None) -> Translation | None:
    """What one plugin makes of a document. Raises PluginError for an answer that is none."""
    function: Any = entry.resolve()
    own = copy.deepcopy(document)  # the next reader is to see what stands in the file
    with timed(entry.plugin, f"read a workflow with its reader '{entry.ref.name}'"):
        answer = call(entry.plugin, f"reading a workflow with {entry.title}", function, own, model or "")
    if answer is None:
        return None
    if (wrong := _wrong_with(answer)) is not None:
        raise PluginError(f"{entry.title} gave {wrong}", cure=entry.plugin.removal)
    workflow, notices = answer
    return Translation(entry.ref.name, workflow, tuple(notices))


def _wrong_with(answer: Any) -> str | None:
    """What is wrong with what a reader gave, in words."""
    from drupe.api import Notice

    if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[1], list):
        return f"{type(answer).__name__} in place of a workflow and a list of notices"
    workflow, notices = answer
    if not all(isinstance(each, Notice) for each in notices):
        return "notices that are none"
    strange = [each.handling for each in notices if each.handling not in HANDLINGS]
    if strange:
        return f"the handling '{strange[0]}'; there are {', '.join(HANDLINGS)}"
    lacks = any(each.handling == MISSING for each in notices)
    if (workflow is None) != lacks or not isinstance(workflow, dict | None):
        return "a workflow although something is missing" if lacks else "no workflow although nothing is missing"
    return None if workflow is None else _wrong_in(workflow)


def _wrong_in(workflow: dict[str, Any]) -> str | None:
    """What is wrong with a workflow that does not depend on what stands in the user's file."""
    from drupe_commands.workflow import Workflow

    for key in workflow:
        if key not in Workflow.model_fields:
            return f"a workflow with an {unknown('key', str(key), Workflow.model_fields).what}"
    try:
        json.dumps(workflow)
    except (TypeError, ValueError) as error:
        return f"a workflow that has no form in JSON: {error}"
    return None


def lines_of(notices: Iterable[Notice]) -> Iterator[str]:
    """One line for each thing that the file asks for; below it what the user can do."""
    notices = list(notices)
    width = max((len(notice.about) for notice in notices), default=0)
    for notice in notices:
        yield f"{notice.handling:8}  {notice.about:{min(width, 40)}}  {notice.what}"
        if notice.cure:
            yield f"{'':10}try: {notice.cure}"


def show_dry_run(translation: Translation, as_json: bool) -> None:
    """What is done about each thing that the file asks for, and the workflow that it becomes."""
    if as_json:
        told = {
            "file_of": translation.tool,
            "workflow": translation.workflow,
            "lines": [asdict(notice) for notice in translation.notices],
        }
        print(json.dumps(told, indent=1))
        return
    print("\n".join(lines_of(translation.notices)))
    counts = Counter(notice.handling for notice in translation.notices)
    print("\n" + ", ".join(f"{counts[handling]} {handling}" for handling in HANDLINGS if counts[handling]))
    if translation.workflow is None:
        print("drupe run would not carry it out: all that is missing would have to be changed in the file")
        return
    print("\nas a workflow file of Drupe:\n")
    print(_yaml(translation.workflow), end="")


def write_workflow(workflow: dict[str, Any], path: Path) -> None:
    """Write a workflow: as JSON where the file is called so, else as YAML. Raises OutputError where it cannot be."""
    from drupe_files import disk_errors

    text = json.dumps(workflow, indent=1) + "\n" if path.suffix.lower() == ".json" else _yaml(workflow)
    with disk_errors(path):
        path.write_text(text, encoding="utf-8")


def _yaml(workflow: dict[str, Any]) -> str:
    import yaml  # type: ignore[import-untyped]

    text: str = yaml.safe_dump(workflow, sort_keys=False, allow_unicode=True, width=120)
    return text
