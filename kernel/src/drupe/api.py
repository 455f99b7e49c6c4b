"""What a plugin imports. Each name is loaded when it is first used, so that a plugin's entry module stays light."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from drupe.hookspecs import Ref, hookimpl

if TYPE_CHECKING:
    from drupe.cache import cache_folder, file_digest, key_of
    from drupe.console import Narrator, progress, size, table
    from drupe.context import Context, Progress, usable_threads
    from drupe.engine import Outcome, Preview, optimize, preview
    from drupe.errors import (
        Cancelled,
        CheckFailed,
        DrupeError,
        ModelError,
        NoRoom,
        OutputError,
        PlanError,
        PluginError,
        RuntimeMissing,
        UsageError,
        nearest,
        unknown,
    )  # fmt: skip
    from drupe.evaluation import Evaluator, EvaluatorConfig, Metric
    from drupe.events import Event
    from drupe.model import Estimate, Model, ModelKind, StoredWeights
    from drupe.opening import DEFAULT_PROVIDER, resolve
    from drupe.passes import Pass, PassConfig, Shape
    from drupe.plan import Plan, Recipe, Request, Step
    from drupe.plugins import Claim, registry
    from drupe.publishing import RECORD, disk_errors
    from drupe.runtime import Generation, Message, Runtime, Session, Timing
    from drupe.target import (
        Capabilities,
        Device,
        ExecutionProvider,
        KernelSupport,
        Operator,
        OperatorUse,
        RuntimePackage,
        Target,
    )  # fmt: skip

_HOMES = {
    "drupe.cache": "cache_folder file_digest key_of",
    "drupe.console": "Narrator progress size table",
    "drupe.context": "Context Progress usable_threads",
    "drupe.engine": "Outcome Preview optimize preview",
    "drupe.errors": "Cancelled CheckFailed DrupeError ModelError NoRoom OutputError PlanError PluginError "
    "RuntimeMissing UsageError nearest unknown",
    "drupe.evaluation": "Evaluator EvaluatorConfig Metric",
    "drupe.events": "Event",
    "drupe.model": "Estimate Model ModelKind StoredWeights",
    "drupe.opening": "DEFAULT_PROVIDER resolve",
    "drupe.passes": "Pass PassConfig Shape",
    "drupe.plan": "Plan Recipe Request Step",
    "drupe.plugins": "Claim registry",
    "drupe.publishing": "RECORD disk_errors",
    "drupe.runtime": "Generation Message Runtime Session Timing",
    "drupe.target": "Capabilities Device ExecutionProvider KernelSupport Operator OperatorUse RuntimePackage Target",
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = [
    "DEFAULT_PROVIDER", "RECORD", "Cancelled", "Capabilities", "CheckFailed", "Claim", "Context", "Device",
    "DrupeError", "Estimate", "Evaluator", "EvaluatorConfig", "Event", "ExecutionProvider", "Generation",
    "KernelSupport", "Message", "Metric", "Model", "ModelError", "ModelKind", "Narrator", "NoRoom", "Operator",
    "OperatorUse", "Outcome", "OutputError", "Pass", "PassConfig", "Plan", "PlanError", "PluginError", "Preview",
    "Progress", "Recipe", "Ref", "Request", "Runtime", "RuntimeMissing", "RuntimePackage", "Session", "Shape",
    "Step", "StoredWeights", "Target", "Timing", "UsageError", "cache_folder", "disk_errors", "file_digest",
    "hookimpl", "key_of", "nearest", "optimize", "preview", "progress", "registry", "resolve", "size", "table",
    "unknown", "usable_threads",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"drupe.api has no '{name}'")
    return getattr(importlib.import_module(_HOME_OF[name]), name)
