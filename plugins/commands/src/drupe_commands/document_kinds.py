"""What a document is: a plan, a workflow, or a file of another tool; and the JSON Schema of the first two."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from drupe.api import UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

ALIKE = 0.75
"""How alike a key has to be to one of a plan or a workflow, from 0 to 1, to be a misspelt one."""


def schema_of(kind: str) -> dict[str, Any]:
    """The JSON Schema of a plan or of a workflow file."""
    from drupe.api import Plan, unknown
    from drupe_commands.workflow import Workflow

    models: dict[str, type[BaseModel]] = {"plan": Plan, "workflow": Workflow}
    if kind not in models:
        raise unknown("schema", kind, models, cure="--schema plan or --schema workflow")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **models[kind].model_json_schema()}


def is_ours(document: dict[str, Any]) -> bool:
    """Whether a document has only keys of plans or of workflows, so that no plugin is asked what it is."""
    from drupe.api import Plan
    from drupe_commands.workflow import Workflow

    keys = set(document)
    return isinstance(document.get("plan"), dict) or any(keys <= {*model.model_fields} for model in (Plan, Workflow))


def is_plan(document: dict[str, Any], file: str) -> bool:
    """Whether a document is a plan, or holds one, rather than a workflow: by its keys."""
    from drupe.api import Plan
    from drupe_commands.workflow import Workflow

    if isinstance(document.get("plan"), dict):
        return True
    keys = set(document)
    plans, workflows = (
        [key for key in keys if get_close_matches(key, model.model_fields, 1, ALIKE)] for model in (Plan, Workflow)
    )
    if not plans and not workflows:
        named = f"the keys {', '.join(sorted(keys))}" if keys else "no keys"
        raise UsageError(
            f"the file is neither a plan nor a workflow: it has {named}",
            where=file,
            cure="a plan has source, target and passes; a workflow has model, and target, options or passes",
        )
    return "source" in keys or len(plans) > len(workflows)
