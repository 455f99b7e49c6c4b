"""Runs: passes work on copies, part by part, and events say which run they belong to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sites import Site

import drupe
from drupe.api import (
    Cancelled,
    CheckFailed,
    Event,
    InProcess,
    Job,
    ModelError,
    Observers,
    PlanError,
    PluginError,
    Runner,
    Step,
    error_from,
    keep_model,
    kept_model,
    new_id,
    plan_of,
    ready,
    registry,
    request_of,
    resolve,
)


@pytest.fixture
def duet(tmp_path: Path) -> Path:
    folder = tmp_path / "duet"
    folder.mkdir()
    (folder / "low.txt").write_text("do re")
    (folder / "high.txt").write_text("mi fa")
    return folder


@pytest.fixture
def job(found, duet, tmp_path):
    """A job that sings a duet."""
    plan = drupe.plan(duet, passes=["sing"])
    source = found.kinds.make("duet").load(resolve(str(duet), {}, found))
    return Job(plan, source, new_id(), tmp_path)


# Copies


def test_a_run_does_not_change_the_payload_of_its_source(job):
    made = InProcess().run(job)
    assert made.payload == {"low": ["do", "re", "la"], "high": ["mi", "fa", "la"]}
    assert job.source.payload == {"low": ["do", "re"], "high": ["mi", "fa"]}


def test_two_runs_can_start_from_one_intermediate_model(job, tmp_path):
    shared = InProcess().run(job)
    bound = job.plan.but(passes=[{"name": "bind"}])
    texts = [InProcess().run(Job(bound, shared, new_id(), tmp_path)).payload for _ in range(2)]
    assert texts == ["do re la / mi fa la"] * 2
    assert shared.payload["low"] == ["do", "re", "la"]


def test_a_plan_without_passes_gives_the_source(job, tmp_path):
    made = InProcess().run(Job(job.plan.but(passes=[]), job.source, new_id(), tmp_path))
    assert made.payload == job.source.payload


# Parts


def test_a_pass_runs_on_each_part_and_facts_belong_to_parts(job):
    made = InProcess().run(job)
    assert {role: dict(facts) for role, facts in made.parts.items()} == {
        "low": {"ink": "black", "signed": "yes"},
        "high": {"ink": "blue", "signed": "yes"},
    }


def test_a_step_may_be_for_some_parts_only(found, duet, job, tmp_path):
    plan = drupe.plan(duet, passes=[Step("sing", parts=("high",))])
    assert plan.passes[0].parts == ("high",)
    made = InProcess().run(Job(plan, job.source, new_id(), tmp_path))
    assert made.payload == {"low": ["do", "re"], "high": ["mi", "fa", "la"]}
    assert "signed" not in made.parts["low"] and made.parts["high"]["signed"] == "yes"


def test_the_error_for_a_part_that_does_not_fit_names_the_part(found, duet):
    with pytest.raises(PlanError, match="'sing' needs signed = no, but the part 'high' has signed = yes"):
        drupe.plan(duet, passes=[Step("sing", parts=("high",)), Step("sing")])


def test_a_pass_may_run_on_the_whole_model(found, duet, tmp_path):
    drupe.optimize(duet, tmp_path / "out", precision="bound")
    assert (tmp_path / "out" / "model.txt").read_text() == "do re / mi fa la"


def test_a_model_of_several_parts_has_no_facts_of_its_only_part(job):
    with pytest.raises(PlanError, match="the model has the parts low, high, and one was expected"):
        _ = job.source.facts


# Passes that break their contract


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, r"the pass 'sign' of acme 1\.0 gave None, which is not a Model"),
        ("model.but(kind='draft')", r"the pass 'sign' of acme 1\.0 made a model of kind 'draft', which it does not"),
    ],
)
def test_the_error_for_a_pass_that_breaks_its_contract_names_the_pass(
    found, source, tmp_path, monkeypatch, result, message
):
    sign = found.passes.find("sign").resolve()
    monkeypatch.setattr(sign, "run", lambda self, model, config, context: result and model.but(kind="draft"))
    with pytest.raises(PluginError, match=message):
        drupe.optimize(source, tmp_path / "out", precision="plain")
    assert not (tmp_path / "out").exists()


def test_the_error_for_unmet_requirements_names_the_pass_before_the_work(found, source, monkeypatch):
    monkeypatch.delattr(found.passes.find("sign").resolve(), "requires")
    with pytest.raises(PluginError, match=r"the pass 'sign' of acme 1\.0 has no requires"):
        drupe.plan(source, precision="plain")


# Events


def events(site: Site) -> list[dict[str, str]]:
    return [json.loads(line) for line in site.events.read_text().splitlines()]


def test_all_events_of_a_run_carry_its_id(found, acme, source, tmp_path):
    drupe.optimize(source, tmp_path / "out", precision="plain")
    told = events(acme)
    assert [each["name"] for each in told] == [
        "run-started", "pass-started", "pass-finished", "run-finished",
        "write-started", "write-finished", "check-started", "check-finished", "published",
    ]  # fmt: skip
    assert len({each["run"] for each in told}) == 1 and told[0]["run"]
    assert {each["parent"] for each in told} == {""}


def test_making_the_reference_is_a_run_of_its_own_within_the_check(found, acme, source, tmp_path):
    (source / "model.txt").rename(source / "draft.txt")
    outcome = drupe.optimize(source, tmp_path / "out")
    assert outcome.check.metrics["longer"] == 0
    told = events(acme)
    own = told[0]["run"]
    names = [(each["name"], each["run"] == own) for each in told]
    inside = names[names.index(("check-started", True)) + 1 : names.index(("check-finished", True))]
    assert inside == [("pass-started", False), ("pass-finished", False)]
    assert {each["parent"] for each in told if each["run"] != own} == {own}


def test_events_of_the_verifiers_process_belong_to_the_run(acme, source, tmp_path):
    (source / "model.txt").rename(source / "draft.txt")
    out = tmp_path / "out"
    done = acme.run("optimize", source, "-o", out, "--provider", "paper", "--precision", "fp32", "--require-check")
    assert done.returncode == 0, done.stderr
    told = events(acme)
    own = told[0]["run"]
    assert {each["parent"] for each in told if each["run"] != own} == {own}
    assert [each["name"] for each in told if each["run"] != own] == ["pass-started", "pass-finished"]


def test_a_failed_run_emits_run_failed(found, acme, source, tmp_path):
    (source / "model.txt").write_text("nameless")
    with pytest.raises(ModelError):
        drupe.optimize(source, tmp_path / "out", precision="plain")
    assert [each["name"] for each in events(acme)][-1] == "run-failed"


def test_an_observer_that_fails_gets_no_more_events_and_the_run_goes_on(acme, source, tmp_path, capsys):
    body = "from drupe.api import hookimpl\n@hookimpl\ndef drupe_observe(event):\n    raise SystemExit(event.name)\n"
    acme.add("rival", {"rival": "rival"}, {"rival.py": body})
    acme.ship("acme")
    acme.allow("rival")
    with acme.installed_here():
        drupe.optimize(source, tmp_path / "out", precision="plain")
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("warning: rival 1.0 is told no more of this run: drupe_observe() raised SystemExit")
    assert told[0].endswith("rival.py:4)")
    assert events(acme)[-1]["name"] == "published"


def test_a_listener_without_a_plugin_gets_all_events(found, source, tmp_path):
    heard: list[str] = []

    class Listener:
        def drupe_observe(self, event: Event) -> None:
            heard.append(event.name)

    drupe.api.listen(Listener())
    drupe.optimize(source, tmp_path / "out", precision="plain")
    assert heard[0] == "run-started" and heard[-1] == "published"


# Runners


class Recording(Runner):
    """Carries out plans in this process, and keeps the jobs that it was given."""

    def run(self, job):
        self.job = job
        return InProcess().run(job)


class Failing(Runner):
    def __init__(self, error):
        self.error = error

    def run(self, job):
        raise self.error


def planned(source, **options):
    request = request_of(str(source), options)
    return plan_of(request, registry())


def test_a_runner_carries_a_plan_out(found, source, tmp_path):
    plan, model = planned(source, precision="plain")
    runner = Recording()
    registry().publisher().carry_out(plan, model, tmp_path / "out", runner=runner)
    assert (tmp_path / "out" / "model.txt").read_text() == "hello -- anonymous"
    assert (runner.job.plan, runner.job.source) == (plan, model) and runner.job.id
    assert isinstance(runner.job.emit, Observers)


@pytest.mark.parametrize("error", [ModelError("broken", where="here", cure="mend it"), ZeroDivisionError("one")])
def test_an_error_of_a_runner_ends_the_run_and_nothing_is_published(found, source, tmp_path, error):
    plan, model = planned(source, precision="plain")
    with pytest.raises(type(error)) as raised:
        registry().publisher().carry_out(plan, model, tmp_path / "out", runner=Failing(error))
    assert raised.value is error and not (tmp_path / "out").exists()


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Cancelled()])
def test_stopping_a_runner_raises_cancelled_and_publishes_nothing(found, source, tmp_path, stop):
    plan, model = planned(source, precision="plain")
    with pytest.raises(Cancelled, match="stopped; nothing was published"):
        registry().publisher().carry_out(plan, model, tmp_path / "out", runner=Failing(stop))
    assert not (tmp_path / "out").exists()


def test_a_run_that_was_cancelled_ends_before_its_next_pass(job):
    job.cancelled.set()
    with pytest.raises(Cancelled):
        InProcess().run(job)


def test_keep_model_and_kept_model_give_the_same_model_back(job, found, tmp_path):
    folder = tmp_path / "kept"
    folder.mkdir()
    keep_model(job.source, folder, ready(job, found).context)
    kept = kept_model(folder, found)
    assert kept.payload == job.source.payload
    assert (kept.kind, kept.task, kept.parts) == (job.source.kind, job.source.task, job.source.parts)


def test_an_error_from_another_process_has_the_same_class_message_and_cure():
    told = json.loads(json.dumps(CheckFailed("it is mute", where="out", cure="speak up").document()))
    error = error_from(told)
    assert (type(error), error.what, error.where, error.cure) == (CheckFailed, "it is mute", "out", "speak up")
    assert type(error_from({**told, "error": "AcmeError"})) is drupe.api.DrupeError
