"""`search_strategy`: how a file searches, as the key `search` of a workflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from drupe.api import UsageError, registry
from drupe_olive_compat.answers import OFF, Answer, Ledger, changed, kept, left_out
from drupe_olive_compat.options import number, whole

PLACE = "search_strategy"
SEARCHERS = "drupe_searchers"
"""The hook that lists what carries out searches."""
INSTALL = "pip install 'drupe[search]'"
ONCE = "every pass runs once, with the values of the file"
NOTHING = "there is nothing to search: no option of a pass has several values that can be searched"
NONE_SEARCHES = "no installed plugin searches"
SAMPLERS: Mapping[str, str] = {"sequential": "grid", "exhaustive": "grid", "random": "random", "tpe": "tpe"}
"""Drupe's samplers, by Olive's names for them."""
ORDER, ORDERS = "execution_order", ("joint", "pass-by-pass")
HOLDERS = ("sampler_config", "search_algorithm_config")
"""Keys that hold others, which may also stand beside them."""
Part = Callable[[dict[str, Any], Any, str], Answer]


def is_searching(strategy: Any) -> bool:
    """Whether a file has a search. `false` is the same as none, and so is one that leaves out the options of passes."""
    return bool(strategy) and not (isinstance(strategy, Mapping) and strategy.get("include_pass_params") is False)


def can_search() -> bool:
    """Whether a plugin is installed that searches."""
    return any(True for _ in registry().offered("searcher", SEARCHERS))


def say_no_search(strategy: Any, why: str, ledger: Ledger) -> None:
    """Answer a search that is not carried out. why: the reason."""
    cure = INSTALL if why == NONE_SEARCHES else ""
    if not strategy:
        if strategy is not None:
            ledger.say(PLACE, kept("there is no search"))
        return
    ledger.say(PLACE, left_out(f"{why}; {ONCE}", cure))
    for name, value in strategy.items() if isinstance(strategy, Mapping) else ():
        ledger.say(f"{PLACE}.{name}", left_out(f"{value!r}: nothing is searched"))


def search_of(strategy: Any, combinations: int, ledger: Ledger) -> dict[str, Any]:
    """The key `search`, without what is measured. combinations: of all values."""
    search: dict[str, Any] = {}
    keys = _flat(strategy) if isinstance(strategy, Mapping) else {}
    for name, (place, value) in sorted(keys.items(), key=lambda each: each[0] == ORDER):  # it depends on the others
        part = _PARTS.get(name)
        ledger.say(place, part(search, value, place) if part else left_out("Olive has no such key"))
    if "sampler" not in search:
        search["sampler"] = "grid"
        ledger.say(PLACE, kept("without a sampler each combination of values is tried, as in Olive (grid)"))
    if search["sampler"] != "grid" and "trials" not in search and "seconds" not in search:
        search["trials"] = combinations
        ledger.say(PLACE, kept(f"without a number of samples all {combinations} combinations are tried"))
    return search


def _flat(strategy: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """The keys of a strategy with their places and values, also those that others hold."""
    found: dict[str, tuple[str, Any]] = {}
    for name, value in strategy.items():
        if name in HOLDERS:
            inner = value if isinstance(value, Mapping) else {}
            found |= {str(key): (f"{PLACE}.{name}.{key}", each) for key, each in inner.items()}
        else:
            found[str(name)] = (f"{PLACE}.{name}", value)
    return found


def _sampler(search: dict[str, Any], value: Any, place: str) -> Answer:
    if value is None or value is False:
        return OFF
    if value not in SAMPLERS:
        raise UsageError(f"there is no sampler {value!r}", where=place, cure=", ".join(SAMPLERS))
    search["sampler"] = SAMPLERS[value]
    return kept(f"the sampler {SAMPLERS[value]}")


def _order(search: dict[str, Any], value: Any, place: str) -> Answer:
    order = str(value).casefold()
    if order not in ORDERS:
        raise UsageError(f"there is no order {value!r}", where=place, cure=", ".join(ORDERS))
    if order != "joint" and search.get("sampler", "grid") == "grid":
        return changed("each combination of values is tried, whatever the order")
    if order != "joint" and "seconds" in search and "trials" not in search:
        return changed("the values of all passes are tried together: only a number of trials can be divided among them")
    search["order"] = order
    return kept(f"the order {order}")


def _trials(search: dict[str, Any], value: Any, place: str) -> Answer:
    """The number of trials. Olive's 0 stands for all combinations, and the least of several limits counts."""
    if value is None or whole(value, place) <= 0:
        return kept("no limit for the number of trials")
    search["trials"] = min(value, search.get("trials", value))
    return kept(f"{search['trials']} trials")


def _seconds(search: dict[str, Any], value: Any, place: str) -> Answer:
    if value is None or number(value, place) <= 0:
        return kept("no limit for the time")
    search["seconds"] = value
    return kept(f"no trial begins after {value:g} s")


def _seed(search: dict[str, Any], value: Any, place: str) -> Answer:
    if value is None:
        return OFF
    search["seed"] = abs(whole(value, place))
    return kept(f"the seed {search['seed']}")


def _models(search: dict[str, Any], value: Any, place: str) -> Answer:
    return changed("one package is made; OUT.study has a plan for each other one that no trial beats")


def _stopping(search: dict[str, Any], value: Any, place: str) -> Answer:
    return left_out("the search ends after its trials or its time") if value else OFF


_OF_THE_SAMPLER = left_out("how the sampler proposes values is its own")
_PARTS: Mapping[str, Part] = {
    ORDER: _order,
    "sampler": _sampler,
    "search_algorithm": _sampler,
    "max_samples": _trials,
    "num_samples": _trials,
    "max_iter": _trials,
    "max_time": _seconds,
    "seed": _seed,
    "output_model_num": _models,
    "stop_when_goals_met": _stopping,
    "include_pass_params": lambda search, value, place: kept("the options of passes are searched"),
    "multivariate": lambda search, value, place: _OF_THE_SAMPLER,
    "group": lambda search, value, place: _OF_THE_SAMPLER,
}
