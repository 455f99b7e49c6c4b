"""Reading: from a workflow file of Olive to one of Drupe, with an answer to each of its lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from drupe.api import Notice, Record, replace
from drupe_olive_compat.answers import Answer, Ledger, changed, kept, left_out, missing
from drupe_olive_compat.chain import Chain, request_of
from drupe_olive_compat.components import Component, OliveFile, file_of, is_olives
from drupe_olive_compat.goals import ROWS, TEXT
from drupe_olive_compat.measuring import say_measuring
from drupe_olive_compat.passes import are_read, follow
from drupe_olive_compat.settings_table import answer_to
from drupe_olive_compat.several_values import Made, Space, filled, leaves_of, several_in, shown, space_of, with_value
from drupe_olive_compat.sources import CHECKPOINT, GRAPH, Source, is_placeholder, source_of, task_of
from drupe_olive_compat.strategy import (
    INSTALL,
    NONE_SEARCHES,
    NOTHING,
    can_search,
    is_searching,
    say_no_search,
    search_of,
)
from drupe_olive_compat.targets import provider_of
from drupe_olive_compat.values import a_text

ADAPTER = "input_model.adapter_path"


def read(document: Mapping[str, Any], model: str) -> tuple[dict[str, Any] | None, list[Notice]] | None:
    """The workflow that a file of Olive asks for, and what is done about each of its lines; None for other files.

    model: instead of the file's; "" for the file's own.
    """
    if not is_olives(document):
        return None
    ledger = Ledger()
    file = file_of(document, ledger)
    source = source_of(file.model, model, ledger)
    provider = provider_of(file, ledger)
    data = {str(each.options.get("name", each.place.rpartition(".")[2])): each.options for each in file.data_configs}
    strategy = file.settings.pop("search_strategy", None)
    space = _space(file, _Follow(source, provider, data), strategy, ledger)
    chain = _Follow(source, provider, data).chain(space.parts)
    _say_what_is_made(file, chain)
    leaves = leaves_of(*request_of(chain))
    ledger.add(chain.ledger)
    if chain.switches:
        source = replace(source, switches=True)
        ledger.instead(ADAPTER, kept(f"the adapter {source.adapter} stays beside the base model, to be switched"))
    for place, answer in space.said:
        ledger.instead(place, answer)
    gives = _gives(source) if space.searches else ""
    measures = say_measuring(file, chain.read, gives, ledger)
    search = search_of(strategy, space.combinations, ledger) if space.searches else {}
    output = _output(file, ledger)
    for name, value in file.settings.items():
        ledger.say(name, answer_to(name, value))
    if ledger.lacks:
        return None, ledger.notices
    made = filled(space, leaves)
    workflow: dict[str, Any] = {"model": source.form, **made, "target": {"provider": provider, **made["target"]}}
    if search:
        search |= {"together": together} if (together := space.together_forms()) else {}
        search |= {"evaluators": measures.evaluator_forms()} if measures.evaluators else {}
        search |= {"goals": measures.goal_list()} if measures.goals else {}
        workflow["search"] = search
    elif measures.evaluators:
        workflow["measure"] = measures.evaluator_forms()
    return workflow | ({"output": output} if output else {}), ledger.notices


class _Follow(Record):
    """Follows passes with one value for each option."""

    source: Source
    provider: str
    data: Mapping[str, Mapping[str, Any]]

    def chain(self, parts: Sequence[Component]) -> Chain:
        chain = Chain(self.source, self.provider, Ledger(), self.data)
        for part in parts:
            follow(chain, part)
        return chain

    def made(self, parts: Sequence[Component]) -> Made:
        chain = self.chain(parts)
        return Made(leaves_of(*request_of(chain)), chain.ledger)


def _space(file: OliveFile, follow_all: _Follow, strategy: Any, ledger: Ledger) -> Space:
    """What of the file's several values is searched, with an answer to each of them, and to a search of nothing."""
    searches = is_searching(strategy)
    nothing = Chain(follow_all.source, follow_all.provider, Ledger())
    found = [
        several
        for number, part in enumerate(file.passes)
        if are_read(nothing, part)
        for several in several_in(number, part, searches)
    ]
    tried = [each for each in found if not file.passes[each.number].options.get("disable_search")]
    why = "" if searches else "include_pass_params is false" if strategy else "the file has no search"
    if tried and searches and not can_search():
        why = NONE_SEARCHES
    parts: Sequence[Component] = file.passes
    firsts: list[tuple[str, Answer]] = []
    for each in found:
        parts = with_value(parts, each, each.values[0])
        if (why or each not in tried) and len(each.values) > 1:
            others = ", ".join(map(shown, each.values[1:]))
            told = f"{shown(each.values[0])} counts, and {others} not: {why or 'disable_search is set'}"
            firsts.append((each.place, left_out(told, INSTALL if why == NONE_SEARCHES else "")))
    if why or not tried:
        say_no_search(strategy, why or NOTHING, ledger)
        return Space(parts, said=firsts)
    space = space_of(parts, [each for each in tried if len(each.values) > 1], follow_all.made)
    space.said += firsts
    if not space.searches:
        say_no_search(strategy, NOTHING, ledger)
    return space


def _gives(source: Source) -> str:
    """What a model gives, for the goals of a search; "" for a graph of which nobody knows it yet."""
    task = task_of(source)
    if not task and source.kind == GRAPH:
        return ""
    return TEXT if not task or task.startswith("text-generation") else ROWS


def _say_what_is_made(file: OliveFile, chain: Chain) -> None:
    """Refuse a file that makes no ONNX graph."""
    if not file.passes:
        cure = "drupe evaluate PACKAGE --against MODEL measures"
        chain.ledger.say("passes", missing("the file makes nothing: it only evaluates", cure))
    elif chain.source.kind == CHECKPOINT and not chain.exports:
        what = "no pass of the file makes an ONNX graph of the checkpoint, and Drupe writes no checkpoints"
        chain.ledger.say("passes", missing(what, "add a pass ModelBuilder"))


def _output(file: OliveFile, ledger: Ledger) -> str:
    """The output folder. Olive takes a name with a suffix for that of the model's file."""
    named = file.settings.pop("output_dir", None)
    named = a_text(named or "", "output_dir")
    if not named or is_placeholder(named):
        what = f"only a placeholder ('{named}') is named" if named else "no output folder is named"
        what += ", and Drupe takes none for granted"
        ledger.say("output_dir", changed(what, "-o OUT"))
        return ""
    path = PurePosixPath(named)
    if path.suffix.casefold() == ".onnx":
        folder = str(path.with_suffix(""))
        ledger.say("output_dir", changed(f"a folder of its own, {folder}, with the graph model.onnx in it"))
        return folder
    ledger.say("output_dir", kept(f"the folder {named}"))
    return named
