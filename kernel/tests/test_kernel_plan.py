"""Which steps of a recipe a request takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drupe.api import ExecutionProvider, Recipe, Request, Step, UsageError
from drupe.plan import propose, recipe_for


class Press(ExecutionProvider):
    name = "press"
    runtime_name = "Press"
    packages = ()

    def recipes(self) -> list[Recipe]:
        steps = (
            Step("set"),
            Step("measure", options={"ruler": "ruler"}, when={"care": ("much",), "limit": ()}),
            Step("print", when={"care": (None, "little")}),
            Step("engrave", when={"care": ("much",)}),
            Step("fold", when={"finish": ("folded",)}),
            Step("bind", when={"finish": ("bound",)}),
        )
        return [Recipe("page", "page", steps)]

    def devices(self) -> list[Any]:
        return []


def taken(**options: Any) -> list[str]:
    request = Request("text", Path("out"), precision="page", options=options)
    plan = propose(request, recipe_for(request, Press()))
    return [step.name for step in plan.steps]


def test_a_step_is_taken_for_the_values_it_names() -> None:
    assert taken() == ["set", "print"]
    assert taken(care="little") == ["set", "print"]
    assert taken(care="much", ruler="long") == ["set", "measure", "engrave"]
    assert taken(limit=3) == ["set", "measure", "print"]


def test_a_value_that_no_step_is_taken_for_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean much"):
        taken(care="mcuh")


def test_an_option_may_have_several_values() -> None:
    assert taken(finish=["bound", "folded"]) == ["set", "print", "fold", "bind"]
    assert taken(finish="bound") == ["set", "print", "bind"]
    with pytest.raises(UsageError, match="'bund'; did you mean bound"):
        taken(finish=("folded", "bund"))
    with pytest.raises(UsageError, match="value of --finish"):
        taken(finish=["", "folded"])


def test_a_misspelt_option_gets_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="unknown option 'precison'; did you mean precision"):
        taken(precison="page")
    with pytest.raises(UsageError, match="precision = 4 is no name"):
        Request("text", Path("out"), precision=4)  # type: ignore[arg-type]


def test_an_option_of_a_step_that_is_not_taken_is_refused() -> None:
    with pytest.raises(UsageError, match="--ruler means nothing without --care much"):
        taken(ruler="long")
