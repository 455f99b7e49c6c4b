"""What a file measures: evaluators, metrics, goals, data, and the search that they are for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from drupe_olive_compat.answers import Answer, Ledger, changed, kept, left_out
from drupe_olive_compat.components import Component, OliveFile, component

SPEED = "drupe evaluate OUT --speed"
AGAINST = "drupe evaluate OUT --against MODEL"
_CLOSE = "the package is compared with its source: KL divergence, agreement and perplexity, or similarity"

_SPEED = changed("speed is not measured in the run", f"{SPEED} measures prompt and decode rates")

METRICS: Mapping[str, Answer] = {
    "latency": _SPEED,
    "throughput": _SPEED,
    "size_on_disk": kept("the summary and drupe.json say the size"),
    "accuracy": left_out(f"not measured; {_CLOSE}", AGAINST),
    "custom": left_out("a function of a script, and Drupe runs no code of a workflow", AGAINST),
}
HARNESSES: Mapping[str, str] = {"lmevaluator": "lm-eval", "mtebevaluator": "MTEB"}
"""What runs the tasks of an evaluator, by its type in lower case."""
_PERPLEXITY = changed("perplexity, on Drupe's own text unless evaluation_data names another", AGAINST)
_UNREAD = left_out("nothing that is done here reads it")
_GOAL = left_out("no goal decides on the package", "the options max_kl and min_cosine limit what quantizing may cost")


def say_measuring(file: OliveFile, calibrating: set[str], ledger: Ledger) -> None:
    """Say what becomes of all that a file measures. calibrating: the names of data configs that passes read."""
    evaluator = file.settings.pop("evaluator", None)
    top_metrics = file.settings.pop("metrics", None)
    if isinstance(evaluator, Mapping):
        file.evaluators["evaluator"] = component(evaluator, "evaluator", ledger)
    elif evaluator is not None:
        ledger.say("evaluator", changed(f"in place of {evaluator}, {_CLOSE}"))
    for each in file.evaluators.values():
        _say_evaluator(each, ledger)
    if top_metrics:
        ledger.say("metrics", METRICS["accuracy"])
    for config in file.data_configs:
        name = str(config.options.get("name", config.place.rpartition(".")[2]))
        used = kept("the text to calibrate with") if name in calibrating else _UNREAD
        ledger.say(config.place, used)
    _say_search(file.settings.pop("search_strategy", None), ledger)


def _say_evaluator(evaluator: Component, ledger: Ledger) -> None:
    if evaluator.type:
        harness = HARNESSES.get(evaluator.type.casefold(), f"an evaluator of the type {evaluator.type}")
        tasks = evaluator.options.get("tasks")
        names = [str(each.get("task", each) if isinstance(each, Mapping) else each) for each in _list(tasks)]
        what = f"the tasks {', '.join(names)} of {harness} are not run" if names else f"{harness} is not run"
        ledger.say(evaluator.place, left_out(f"{what}; {_CLOSE}", AGAINST))
    elif not evaluator.options.get("metrics"):
        ledger.say(evaluator.place, left_out("it has no metrics"))
    for place, metric in _metrics(evaluator):
        kind = str(metric.get("type", "")).casefold()
        names = [str(each.get("name", "")) for each in _mappings(metric.get("sub_types"))]
        answer = METRICS.get(kind, left_out(f"metrics of the type {kind} are not measured", AGAINST))
        if kind == "accuracy" and "perplexity" in names:
            answer = _PERPLEXITY
        ledger.say(place, answer)
        for each in _mappings(metric.get("sub_types")):
            if each.get("goal"):
                ledger.say(f"{place}.{each.get('name', '')}.goal", _GOAL)


def _metrics(evaluator: Component) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The metrics of an evaluator, with their places. One that is only a name stands at the top of the file."""
    for number, metric in enumerate(_list(evaluator.options.get("metrics"))):
        if isinstance(metric, Mapping):
            yield evaluator.at(f"metrics.{metric.get('name', number)}"), metric
        else:
            yield evaluator.at(f"metrics.{metric}"), {"type": "accuracy"}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in _list(value) if isinstance(each, Mapping)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _say_search(strategy: Any, ledger: Ledger) -> None:
    """Say what becomes of a search: nothing is searched, and every pass runs once."""
    if not strategy:
        if strategy is not None:
            ledger.say("search_strategy", kept("there is no search"))
        return
    once = "there is no search over options: every pass runs once, with the values of the file"
    if not isinstance(strategy, Mapping):
        ledger.say("search_strategy", left_out(once))
        return
    for name, value in strategy.items():
        ledger.say(f"search_strategy.{name}", left_out(f"{value!r}: {once}"))
