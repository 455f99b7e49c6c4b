"""Walking along a file's passes: a line for each pass and each of its options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from drupe.api import UsageError, replace
from drupe_olive_compat.answers import CHANGED, KEPT, Answer, changed, kept, left_out, missing
from drupe_olive_compat.chain import Chain
from drupe_olive_compat.components import Component
from drupe_olive_compat.options import DEFAULTS, Treatment
from drupe_olive_compat.pass_table import rule_of
from drupe_olive_compat.rules import Rule
from drupe_olive_compat.values import NOT_GIVEN

SAID_BY_EFFECT = ("GraphSurgeries", "OrtTransformersOptimization", "OnnxIODataTypeConverter")
"""Passes whose lines depend on their options; the effect of their rule says them."""
NESTED = {"extra_options": "", "search": "search."}
"""Options of ModelBuilder that hold others, and what stands before the names of these."""
OF_ANY_PASS = {
    "host": left_out("all passes run here"),
    "evaluator": left_out("the package is compared with its source at the end"),
    "disable_search": kept("where it is true, the first of several values counts"),
    "clean_run_cache": left_out("a cached result is used only where all that it depends on is the same"),
    "output_name": left_out("one package is made"),
    "user_script": missing("a Python file, which Drupe does not run", "leave it out"),
    "script_dir": missing("a Python file, which Drupe does not run", "leave it out"),
}
DEFAULT = changed("Drupe's default")
UNKNOWN = left_out("no option of this name; Olive ignores it with a warning")


def follow(chain: Chain, part: Component) -> None:
    """Take one pass of the file into the chain."""
    name, rule = rule_of(part.type)
    part = replace(part, type=name)
    answer = rule.answer(chain)
    if name not in SAID_BY_EFFECT:
        chain.ledger.say(part.title, answer)
    if answer.handling in (KEPT, CHANGED) and name not in SAID_BY_EFFECT:
        for option, value in _options(part):
            if (treated := _treated(chain, rule, option, value, part.at(option))) is not None:
                chain.ledger.say(part.at(option), treated)
    elif "user_script" in part.options:
        chain.ledger.say(part.at("user_script"), OF_ANY_PASS["user_script"])
    for option in rule.required if answer.handling in (KEPT, CHANGED) and not chain.is_graph else ():
        if part.options.get(option) in (None, *DEFAULTS):
            answer = missing("Olive's pass has no default for it", f"add {option} to the pass")
            chain.ledger.say(part.at(option), answer)
    if name in SAID_BY_EFFECT:
        for option in _left_to_defaults(part):
            chain.ledger.say(part.at(option), DEFAULT)
    part = replace(part, options={k: v for k, v in part.options.items() if k not in _left_to_defaults(part)})
    if rule.effect is not None and (answer.handling in (KEPT, CHANGED) or name in SAID_BY_EFFECT):
        rule.effect(chain, part)
    chain.exports = chain.exports or rule.exports


def are_read(chain: Chain, part: Component) -> bool:
    """Whether the options of a pass count: not where the pass is left out, or missing."""
    name, rule = rule_of(part.type)
    return name in SAID_BY_EFFECT or rule.answer(chain).handling in (KEPT, CHANGED)


def _left_to_defaults(part: Component) -> list[str]:
    """Options for which the file has a word instead of a value."""
    return [name for name, value in part.options.items() if isinstance(value, str) and value in DEFAULTS]


def _options(part: Component) -> Iterator[tuple[str, Any]]:
    """The options of a pass, and those inside of an option that holds others."""
    for option, value in part.options.items():
        if option in NESTED:
            if not isinstance(value, Mapping):
                raise UsageError(f"{value!r} does not fit: a mapping of keys is wanted", where=part.at(option))
            for inner, each in value.items():
                yield f"{option}.{inner}", each
        else:
            yield option, value


def _treated(chain: Chain, rule: Rule, option: str, value: Any, place: str) -> Answer | None:
    outer, _, inner = option.rpartition(".")
    known = f"{NESTED[outer]}{inner}" if outer in NESTED else option
    treatment: Treatment | None = rule.options.get(known)
    if treatment is None:
        return OF_ANY_PASS.get(option, UNKNOWN)
    if value is None:
        return NOT_GIVEN
    if isinstance(value, str) and value in DEFAULTS:
        return DEFAULT
    return treatment(chain, value, place)
