"""Reading a plan from a document. Errors name the place in the document."""

from __future__ import annotations

import pytest

from drupe.api import Plan, PlannedPass, PlannedSource, PlannedTarget, UsageError
from drupe_commands.plan_files import plan_from


@pytest.fixture
def plan() -> Plan:
    return Plan(
        source=PlannedSource(reference="model", kind="text"),
        target=PlannedTarget(provider="paper"),
        passes=(PlannedPass(name="sign", config={"by": "me"}),),
    )


def test_a_plan_is_the_whole_document_or_its_key_plan(plan):
    document = plan.model_dump(mode="json")
    assert plan_from(document, "plan.json") == plan
    assert plan_from({"plan": document, "drupe": "0.1.0"}, "drupe.json") == plan


@pytest.mark.parametrize(
    ("wrong", "place", "meant"),
    [
        ({"passses": []}, "passses", "passes"),
        ({"source": {"refrence": "x"}}, "source.refrence", "reference"),
        ({"target": {"provider": "paper", "precison": "int4"}}, "target.precison", "precision"),
        ({"passes": [{"name": "sign", "conf": {}}]}, "passes.0.conf", "config"),
        ({"check": {"runs": True}}, "check.runs", "run"),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_the_error_for_an_unknown_key_names_its_place_and_the_nearest_key(plan, wrong, place, meant, inside):
    document = {**plan.model_dump(mode="json"), **wrong}
    with pytest.raises(UsageError, match="unknown key") as refused:
        plan_from({"plan": document} if inside else document, "file.json")
    assert f"did you mean {meant}" in refused.value.what
    assert refused.value.where == f"file.json, at {'plan.' if inside else ''}{place}"


@pytest.mark.parametrize(
    ("document", "what", "place"),
    [
        ([], r"\[\] does not fit: a mapping of keys is wanted", "its top"),
        ("text", "'text' does not fit: a mapping", "its top"),
        ({"source": {"reference": "x"}}, "the key 'target' is missing", "its top"),
        ({"source": {}}, "the key 'reference' is missing", "source"),
        ({"version": 2}, "2 does not fit: it must be 1", "version"),
    ],
)
def test_the_error_for_an_invalid_plan_names_the_place(document, what, place):
    with pytest.raises(UsageError, match=what) as refused:
        plan_from(document, "file.json")
    assert refused.value.where == f"file.json, at {place}"
