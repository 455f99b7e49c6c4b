"""The plugin registers the task, the evaluator that compares a package with its source, and a flag."""

from __future__ import annotations

from drupe.api import Option, Ref, hookimpl


@hookimpl
def drupe_tasks():
    return [Ref("grading", "orchard.task.grading:Grading", "gives apples grades")]


@hookimpl
def drupe_evaluators():
    return [Ref("grades", "orchard.task.grading:Grades", "how far grades are from those of the source")]


@hookimpl
def drupe_options():
    return [Option("most_apart", "How far grades may be from the source's.", type=float, group="Orchard")]
