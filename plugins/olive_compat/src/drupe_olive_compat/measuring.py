"""What a file measures: evaluators, metrics, data, and the goals of a search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from drupe.api import UsageError, replace
from drupe_olive_compat import harness
from drupe_olive_compat.answers import Answer, Ledger, changed, kept, left_out
from drupe_olive_compat.components import Component, OliveFile, component
from drupe_olive_compat.goals import limit_of, ranked
from drupe_olive_compat.values import a_list

AGAINST = "drupe evaluate OUT --against MODEL"
_CLOSE = "the package is compared with its source: KL divergence, agreement and perplexity, or similarity"

_OF_THE_PACKAGE = "measured of the finished package, on random inputs, in a process of its own"

MEASURED: Mapping[str, str] = {"latency": "latency", "throughput": "throughput"}
"""The evaluator of Drupe that measures a metric, by the metric's type."""
METRICS: Mapping[str, Answer] = {
    "latency": changed(f"{_OF_THE_PACKAGE}: time to the first token and between tokens, or of a run"),
    "throughput": changed(f"{_OF_THE_PACKAGE}: prefill and decode rates, or rows a second"),
    "size_on_disk": kept("the summary and drupe.json say the size"),
    "accuracy": left_out(f"not measured; {_CLOSE}", AGAINST),
    "custom": left_out("a function of a script, and Drupe runs no code of a workflow", AGAINST),
}
HARNESSES: Mapping[str, str] = {harness.TYPE: "lm-eval", "mtebevaluator": "MTEB"}
"""What runs the tasks of an evaluator, by its type in lower case."""
_PERPLEXITY = changed("perplexity, on Drupe's own text unless evaluation_data names another", AGAINST)
_UNREAD = left_out("nothing that is done here reads it")
_RUNS = changed("one run to warm up, and the median of 7", "drupe evaluate OUT --evaluator NAME --set repeats=N")
_SESSION = left_out("speed is measured in the package's own session, on random inputs")
_GOAL = left_out(
    "nothing is searched, so no goal decides on the package",
    "the options max_kl and min_cosine limit what quantizing may cost",
)


LOWER = ("latency", "size_on_disk")
"""Types of metrics of which less is better, unless the file says another direction."""
LOWER_ACCURACY = ("perplexity", "wer")


@dataclass
class Measures:
    """What is measured. evaluators: of Drupe, by name, with their settings; goals: of a search, by metric.

    gives: what the model gives, as far as a search needs to know it; "" where there are no goals.
    """

    gives: str = ""
    evaluators: dict[str, dict[str, Any]] = field(default_factory=dict)
    goals: dict[str, dict[str, Any]] = field(default_factory=dict)

    def evaluator_forms(self) -> list[str] | dict[str, dict[str, Any]]:
        """The evaluators as a workflow has them: their names where none has settings."""
        return self.evaluators if any(self.evaluators.values()) else [*self.evaluators]

    def goal_list(self) -> list[Any]:
        """The goals as a workflow has them."""
        return [name if not keys else {"metric": name, **keys} for name, keys in self.goals.items()]


def say_measuring(file: OliveFile, read: set[str], gives: str, ledger: Ledger) -> Measures:
    """Say what becomes of all that a file measures.

    read: the names of data configs that passes read. gives: as in Measures.
    """
    evaluator = file.settings.pop("evaluator", None)
    top_metrics = file.settings.pop("metrics", None)
    if isinstance(evaluator, Mapping):
        file.evaluators["evaluator"] = component(evaluator, "evaluator", ledger)
    elif evaluator is not None:
        ledger.say("evaluator", changed(f"{evaluator} measures as far as its own lines say; beside it, {_CLOSE}"))
    used = "evaluator" if isinstance(evaluator, Mapping) else evaluator
    if used is not None and used not in file.evaluators:
        cure = "add it to evaluators, or leave evaluator out"
        raise UsageError(f"there is no evaluator '{used}' in the file", where="evaluator", cure=cure)
    measures = Measures(gives)
    named = _mappings(top_metrics, "metrics")
    for name, each in file.evaluators.items():
        _say_evaluator(_with_metrics(each, named), measures, ledger, used=name == used)
    if named:
        ledger.say("metrics", kept("read where an evaluator names them"))
    for config in file.data_configs:
        name = str(config.options.get("name", config.place.rpartition(".")[2]))
        ledger.say(config.place, kept("a pass reads it, as its own lines say") if name in read else _UNREAD)
    return measures


def _say_evaluator(evaluator: Component, measures: Measures, ledger: Ledger, used: bool) -> None:
    """Say what becomes of an evaluator, and note what is measured in its place.

    used: whether the file measures with it.
    """
    if evaluator.type:
        _say_tasks(evaluator, evaluator.type.casefold(), measures, ledger, used)
    elif not evaluator.options.get("metrics"):
        ledger.say(evaluator.place, left_out("it has no metrics"))
    for place, metric in _metrics(evaluator):
        kind = str(metric.get("type", "")).casefold()
        names = [str(each.get("name", "")) for each in _mappings(metric.get("sub_types"), f"{place}.sub_types")]
        answer = METRICS.get(kind, left_out(f"metrics of the type {kind} are not measured", AGAINST))
        if kind in MEASURED:
            measures.evaluators |= {MEASURED[kind]: {}} if used else {}
            answer = answer if used else _UNREAD
            _say_how_often(place, metric, ledger)
        if kind == "accuracy" and "perplexity" in names:
            answer = _PERPLEXITY
        ledger.say(place, answer)
    if used and measures.gives:
        _say_goals(evaluator, measures, ledger)
    else:
        for place, _, each in _sub_types(evaluator):
            if each.get("goal"):
                ledger.say(f"{place}.goal", _GOAL if used else _UNREAD)


def _say_tasks(evaluator: Component, kind: str, measures: Measures, ledger: Ledger, used: bool) -> None:
    """Say what becomes of an evaluator that runs the tasks of a harness."""
    given = evaluator.options.get("tasks")
    tasks = [given] if isinstance(given, str) else a_list(given, evaluator.at("tasks"))
    evaluator = replace(evaluator, options={**evaluator.options, "tasks": tasks})
    names = [str(each.get("task", each) if isinstance(each, Mapping) else each) for each in tasks]
    if kind != harness.TYPE or not names or not harness.can_run():
        named = HARNESSES.get(kind, f"an evaluator of the type {evaluator.type}")
        what = f"the tasks {', '.join(names)} of {named} are not run" if names else f"{named} is not run"
        cure = harness.INSTALL if kind == harness.TYPE and names else AGAINST
        ledger.say(evaluator.place, left_out(f"{what}; {_CLOSE}", cure))
        return
    if not used:
        ledger.say(evaluator.place, _UNREAD)
        return
    measures.evaluators[harness.EVALUATOR] = harness.settings_of(evaluator.options)
    ledger.say(evaluator.place, harness.tasks_run(names))
    for name in evaluator.options:
        if name != "tasks":
            ledger.say(evaluator.at(name), harness.OPTIONS.get(name, _UNREAD))


def _say_goals(evaluator: Component, measures: Measures, ledger: Ledger) -> None:
    """Say which goals the metrics become, and note them.

    What has a priority is optimized, and the rest keeps to its limits. Where nothing has one, all is optimized.
    """
    subs = list(_sub_types(evaluator))
    has_priorities = any(_priority(each) > 0 for _, _, each in subs)
    for place, kind, each in subs:
        sub, is_optimized = str(each.get("name", "")), not has_priorities or _priority(each) > 0
        found = ranked(kind, sub, measures.gives)
        if found is None:
            ledger.say(place, left_out("no goal of the search: it is not measured"))
            continue
        is_lower = kind in LOWER or (kind == "accuracy" and sub in LOWER_ACCURACY)
        keys: dict[str, Any] = {}
        if found.alike and isinstance(turned := each.get("higher_is_better"), bool) and turned == is_lower:
            # Olive takes a perplexity for the better the higher it is, unless the file says more
            is_lower = not turned
            keys["better"] = "lower" if is_lower else "higher"
        if isinstance(goal := each.get("goal"), Mapping):
            limit, answer = limit_of(goal, found, is_lower, f"{place}.goal")
            ledger.say(f"{place}.goal", answer)
            keys |= limit
        if is_optimized:
            instead = "" if found.alike else ", which is measured in its place"
            ledger.say(place, changed(f"a goal of the search: {found.metric}{instead}"))
        elif keys:
            keys["optimize"] = False
        else:
            ledger.say(place, kept("it has no priority, and is no goal of the search"))
            continue
        _note(measures, found.metric, keys)


def _note(measures: Measures, metric: str, keys: Mapping[str, Any]) -> None:
    """Take a goal. Of two for one metric, the limits of both count, and it is optimized if one of them is."""
    earlier = measures.goals.get(metric)
    together = {**(earlier or {}), **keys}
    if earlier is not None and ("optimize" not in earlier or "optimize" not in keys):
        together.pop("optimize", None)
    measures.goals[metric] = together


def _priority(sub: Mapping[str, Any]) -> float:
    priority = sub.get("priority")
    return priority if isinstance(priority, int | float) else -1


def _sub_types(evaluator: Component) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """The sub types of an evaluator's metrics, with their places and the types of the metrics."""
    for place, metric in _metrics(evaluator):
        kind = str(metric.get("type", "")).casefold()
        for each in _mappings(metric.get("sub_types"), f"{place}.sub_types"):
            yield f"{place}.{each.get('name', '')}", kind, each


def _say_how_often(place: str, metric: Mapping[str, Any], ledger: Ledger) -> None:
    """Say what becomes of the number of runs and of the session that a metric of speed asks for."""
    for each in _mappings(metric.get("sub_types"), f"{place}.sub_types"):
        if each.get("metric_config"):
            ledger.say(f"{place}.{each.get('name', '')}.metric_config", _RUNS)
    settings = metric.get("user_config")
    for name in settings if isinstance(settings, Mapping) else ():
        ledger.say(f"{place}.user_config.{name}", _SESSION)


def _metrics(evaluator: Component) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The metrics of an evaluator, with their places."""
    for number, metric in enumerate(_mappings(evaluator.options.get("metrics"), evaluator.at("metrics"))):
        yield evaluator.at(f"metrics.{metric.get('name', number)}"), metric


def _with_metrics(evaluator: Component, named: Sequence[Mapping[str, Any]]) -> Component:
    """An evaluator that has its metrics, and not their names. named: the metrics at the top of the file."""
    if "metrics" not in evaluator.options:
        return evaluator
    listed = a_list(evaluator.options["metrics"], evaluator.at("metrics"))
    known = {str(each.get("name")): each for each in named}
    for each in listed:
        if not isinstance(each, Mapping) and str(each) not in known:
            what = f"there is no metric '{each}' in the file"
            raise UsageError(what, where=evaluator.at("metrics"), cure="add it to metrics at the top of the file")
    metrics = [each if isinstance(each, Mapping) else known[str(each)] for each in listed]
    return replace(evaluator, options={**evaluator.options, "metrics": metrics})


def _mappings(value: Any, place: str) -> list[Mapping[str, Any]]:
    for each in (listed := a_list(value, place)):
        if not isinstance(each, Mapping):
            raise UsageError(f"{each!r} does not fit: a mapping of keys is wanted", where=place)
    return listed
