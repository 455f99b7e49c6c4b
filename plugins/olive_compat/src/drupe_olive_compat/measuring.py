"""What a file measures: evaluators, metrics, goals, data, and the search that they are for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from drupe_olive_compat.answers import Answer, Ledger, changed, kept, left_out
from drupe_olive_compat.components import Component, OliveFile, component

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
HARNESSES: Mapping[str, str] = {"lmevaluator": "lm-eval", "mtebevaluator": "MTEB"}
"""What runs the tasks of an evaluator, by its type in lower case."""
_PERPLEXITY = changed("perplexity, on Drupe's own text unless evaluation_data names another", AGAINST)
_UNREAD = left_out("nothing that is done here reads it")
_RUNS = changed("one run to warm up, and the median of 7", "drupe evaluate OUT --evaluator NAME --set repeats=N")
_SESSION = left_out("speed is measured in the package's own session, on random inputs")
_GOAL = left_out("no goal decides on the package", "the options max_kl and min_cosine limit what quantizing may cost")


def say_measuring(file: OliveFile, calibrating: set[str], ledger: Ledger) -> list[str]:
    """Say what becomes of all that a file measures; the evaluators that measure the finished package.

    calibrating: the names of data configs that passes read.
    """
    evaluator = file.settings.pop("evaluator", None)
    top_metrics = file.settings.pop("metrics", None)
    if isinstance(evaluator, Mapping):
        file.evaluators["evaluator"] = component(evaluator, "evaluator", ledger)
    elif evaluator is not None:
        ledger.say("evaluator", changed(f"in place of {evaluator}, {_CLOSE}"))
    used = "evaluator" if isinstance(evaluator, Mapping) else evaluator
    measure: list[str] = []
    for name, each in file.evaluators.items():
        measure += _say_evaluator(each, ledger, used=name == used)
    if top_metrics:
        ledger.say("metrics", METRICS["accuracy"])
    for config in file.data_configs:
        name = str(config.options.get("name", config.place.rpartition(".")[2]))
        used = kept("the text to calibrate with") if name in calibrating else _UNREAD
        ledger.say(config.place, used)
    _say_search(file.settings.pop("search_strategy", None), ledger)
    return list(dict.fromkeys(measure))


def _say_evaluator(evaluator: Component, ledger: Ledger, used: bool) -> list[str]:
    """Say what becomes of an evaluator; returns Drupe's in its place. used: whether the file measures with it."""
    measure: list[str] = []
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
        if kind in MEASURED:
            measure += [MEASURED[kind]] if used else []
            answer = answer if used else _UNREAD
            _say_how_often(place, metric, ledger)
        if kind == "accuracy" and "perplexity" in names:
            answer = _PERPLEXITY
        ledger.say(place, answer)
        for each in _mappings(metric.get("sub_types")):
            if each.get("goal"):
                ledger.say(f"{place}.{each.get('name', '')}.goal", _GOAL)
    return measure


def _say_how_often(place: str, metric: Mapping[str, Any], ledger: Ledger) -> None:
    """Say what becomes of the number of runs and of the session that a metric of speed asks for."""
    for each in _mappings(metric.get("sub_types")):
        if each.get("metric_config"):
            ledger.say(f"{place}.{each.get('name', '')}.metric_config", _RUNS)
    settings = metric.get("user_config")
    for name in settings if isinstance(settings, Mapping) else ():
        ledger.say(f"{place}.user_config.{name}", _SESSION)


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
