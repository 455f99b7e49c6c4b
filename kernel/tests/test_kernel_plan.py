"""Plans as values: JSON and back, changing them, and running a recorded plan again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import drupe
from drupe.api import Plan, PlanError, UsageError


@pytest.fixture
def plan(found, source: Path) -> Plan:
    return drupe.plan(source, precision="plain", author="me")


def recorded(package: Path) -> Plan:
    return Plan.model_validate(json.loads((package / "drupe.json").read_text())["plan"])


def test_a_plan_goes_to_json_and_back(plan):
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert Plan.model_validate(plan.model_dump(mode="json")) == plan


def test_a_plan_holds_source_target_passes_options_and_plugins(plan, source):
    assert plan.source.reference == str(source)
    assert (plan.source.kind, plan.source.task) == ("text", "echoing")
    assert plan.source.parts == {"model": {"signed": "no"}}
    assert (plan.target.provider, plan.target.precision) == ("paper", "plain")
    (sign,) = plan.passes
    assert (sign.name, sign.config) == ("sign", {"by": "me"})
    assert (sign.placed_by, sign.brought_by, sign.revision) == ("acme", "acme 1.0", 1)
    assert plan.options == {"author": "me"}
    assert plan.plugins == {"acme": "1.0"}
    assert plan.chain == "sign"


def test_but_gives_a_changed_plan_and_leaves_the_first_as_it_is(plan):
    assert plan.but(threads=2).threads == 2 and plan.threads == 0
    assert plan.configured("sign", by="you").passes[0].config == {"by": "you"}
    assert plan.without("sign").passes == ()
    assert plan.without("sign").chain == "no pass"
    assert plan.passes[0].config == {"by": "me"}


def test_an_invalid_change_of_a_plan_is_refused(plan):
    with pytest.raises(UsageError, match=r"unknown pass 'sing' of this plan; did you mean sign\?"):
        plan.configured("sing", by="you")
    with pytest.raises(UsageError, match="unknown pass 'sing' of this plan"):
        plan.without("sing")
    with pytest.raises(ValueError, match="threads"):
        plan.but(threads=-1)


def test_running_a_recorded_plan_again_makes_the_same_bytes(plan, tmp_path):
    drupe.run(plan, tmp_path / "one")
    kept = recorded(tmp_path / "one")
    drupe.run(kept, tmp_path / "two")
    texts = [(tmp_path / name / "model.txt").read_bytes() for name in ("one", "two")]
    assert texts == [b"hello -- me"] * 2


def test_what_is_no_plan_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"a plan is wanted, not 'plan\.json'"):
        drupe.run("plan.json", tmp_path / "out")


def test_a_changed_plan_can_be_run(plan, tmp_path):
    drupe.run(plan.configured("sign", by="you"), tmp_path / "out")
    assert (tmp_path / "out" / "model.txt").read_text() == "hello -- you"


def test_a_recorded_plan_is_refused_if_its_source_has_changed(plan, source, tmp_path):
    assert plan.source.fingerprint == ""
    drupe.run(plan, tmp_path / "one")
    kept = recorded(tmp_path / "one")
    (source / "model.txt").write_text("hullo")
    with pytest.raises(PlanError, match="has changed since"):
        drupe.run(kept, tmp_path / "two")
    drupe.run(plan, tmp_path / "two")  # a plan without a fingerprint accepts any content


def test_a_plan_for_another_kind_of_model_is_refused(plan, source, tmp_path):
    (source / "model.txt").rename(source / "draft.txt")
    with pytest.raises(PlanError, match="made for a model of kind 'text', but this one is of kind 'draft'"):
        drupe.run(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_plan_for_another_task_is_refused(plan, tmp_path):
    other = plan.but(source={**plan.source.model_dump(), "task": "singing"})
    with pytest.raises(PlanError, match="made for the task 'singing', but this model is for 'echoing'"):
        drupe.run(other, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("plugins", "why"),
    [({"acme": "0.9"}, "1.0 is installed"), ({"other": "1.0"}, "it is not installed")],
)
def test_a_plan_of_another_plugin_or_another_version_of_one_is_refused(plan, plugins, why, tmp_path):
    with pytest.raises(PlanError, match=f"the plan was made with .* but {why}") as refused:
        drupe.run(plan.but(plugins=plugins), tmp_path / "out")
    ((name, version),) = plugins.items()
    assert refused.value.cure.startswith(f"pip install {name}=={version}")
    assert not (tmp_path / "out").exists()
    drupe.run(plan.but(plugins={}), tmp_path / "out")


def test_a_plan_of_another_revision_of_a_pass_is_refused(plan, tmp_path):
    older = plan.passes[0].model_copy(update={"revision": 7})
    with pytest.raises(PlanError, match="made with revision 7 of the pass 'sign', but revision 1 is installed"):
        drupe.run(plan.but(passes=[older]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    drupe.run(plan.but(passes=[older.model_copy(update={"revision": 0})]), tmp_path / "out")


@pytest.mark.parametrize(
    ("passes", "error", "message"),
    [
        ([{"name": "sgin"}], UsageError, "unknown pass 'sgin'; did you mean .*sign"),
        (
            [{"name": "sign", "config": {"bye": "me"}}],
            UsageError,
            "unknown key 'bye' of the pass 'sign'; did you mean by",
        ),
        ([{"name": "sign", "config": {"by": 3}}], UsageError, "by = 3"),
        (
            [{"name": "shout", "config": {"by": "me"}}],
            UsageError,
            "unknown key 'by' of the pass 'shout'; it has no keys",
        ),
        ([{"name": "sign"}, {"name": "sign"}], PlanError, "needs signed = no, but the model has signed = yes"),
        ([{"name": "write"}], PlanError, "takes a model of kind 'draft', not 'text'"),
        ([{"name": "sign", "parts": ["high"]}], UsageError, "unknown part 'high' of the model"),
    ],
)
def test_passes_that_do_not_fit_are_refused_before_the_work(plan, passes, error, message, tmp_path):
    with pytest.raises(error, match=message):
        drupe.run(plan.but(passes=passes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_secrets_are_not_in_a_plan_and_come_from_the_environment_when_it_is_run(found, source, tmp_path, monkeypatch):
    plan = drupe.plan(source, precision="plain", password="sesame", page=".")
    assert "sesame" not in plan.model_dump_json()
    assert plan.source.options == {"page": "."}
    monkeypatch.setenv("ACME_PASSWORD", "sesame")
    drupe.run(plan, tmp_path / "out")
    assert "sesame" not in (tmp_path / "out" / "drupe.json").read_text()
