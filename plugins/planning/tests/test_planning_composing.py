"""Composing a plan: claims fill stages, steps read options, and plugins amend it if the user has asked for them."""

from __future__ import annotations

import re

import pytest
from rivals import CLAIM, OPTION, installed

import drupe
from drupe.api import (
    Plan,
    PlanError,
    PluginCrash,
    PluginError,
    UsageError,
)


def names(plan: Plan) -> list[str]:
    return [each.name for each in plan.passes]


def claims(condition: str, steps: str, rank: int = 0, name: str = "theirs") -> str:
    return CLAIM.format(body=f"return Claim('{name}', ({steps}), {rank}) if {condition} else None")


QUANTIZE = "stage.name == 'quantize'"


# Stages and claims


def test_the_stages_of_a_recipe_are_filled_by_claims(found, source):
    plan = drupe.plan(source, volume="loud")
    assert names(plan) == ["shout"]
    assert (plan.passes[0].stage, plan.passes[0].placed_by) == ("quantize", "acme")
    assert plan.recipe == "paper-int4"


def test_a_claim_may_have_no_steps(found, source):
    assert names(drupe.plan(source)) == []


def test_claims_get_the_model_as_earlier_stages_leave_it(found, source):
    (source / "model.txt").rename(source / "draft.txt")
    plan = drupe.plan(source, volume="loud")
    assert names(plan) == ["write", "shout"]


def test_the_highest_rank_wins(acme, source):
    with installed(acme, claims(QUANTIZE, "Step('sign'),", rank=1), ships=True):
        assert names(drupe.plan(source)) == ["sign"]


def test_two_claims_of_one_rank_are_an_error_that_names_both(acme, source):
    with installed(acme, claims(QUANTIZE, "Step('sign'),"), ships=True):
        with pytest.raises(
            PluginError, match=r"the stage 'quantize' is claimed by acme \('voice'\) and rival"
        ) as error:
            drupe.plan(source)
        assert error.value.cure == "pip uninstall one of them"


@pytest.mark.parametrize("stage", ["import", "quantize", "fuse", "package"])
def test_a_third_partys_claim_is_ignored_unless_the_user_asks_for_it(acme, source, stage):
    with installed(acme, claims(f"stage.name == '{stage}'", "Step('sign'),", rank=10**6)):
        assert names(drupe.plan(source)) == []


@pytest.mark.parametrize("asked", [{"ribbon": "red"}, {"volume": "silent"}])
def test_a_third_partys_claim_counts_if_the_user_gives_its_option_or_choice(acme, source, asked):
    options = "Option('ribbon', 'A ribbon.'), Option('volume', '', choices=('silent',), extends=True)"
    claim = CLAIM.format(
        body=f"return Claim('theirs', (Step('sign'),), 7, ('ribbon', 'volume')) if {QUANTIZE} else None"
    )
    with installed(acme, OPTION.format(options=options) + claim):
        assert names(drupe.plan(source, **asked)) == ["sign"]
        assert names(drupe.plan(source, volume="loud")) == ["shout"]


def test_a_third_partys_claim_counts_if_no_other_fills_a_required_stage(acme, source):
    (source / "model.txt").rename(source / "low.txt")
    (source / "high.txt").write_text("la")
    unfilled = "no installed plugin fills the stage 'quantize' for a model of kind 'duet'"
    with installed(acme), pytest.raises(PlanError, match=unfilled):
        drupe.plan(source)
    with installed(acme, claims(f"{QUANTIZE} and model.kind == 'duet'", "Step('bind'),")):
        assert names(drupe.plan(source)) == ["bind"]


def test_a_claim_is_chosen_by_name(acme, source):
    claim = claims("stage.name == 'import'", "Step('sign'),", rank=-5, name="signed")
    with installed(acme, claim):
        plan = drupe.plan(source, exporter="signed")
        assert names(plan) == ["sign"] and plan.passes[0].placed_by == "rival"
        assert names(drupe.plan(source, exporter="reader")) == []
        with pytest.raises(UsageError, match="unknown exporter for this model 'sigend'; did you mean signed"):
            drupe.plan(source, exporter="sigend")
        with pytest.raises(UsageError, match="--exporter signed has no effect here: the plan has no stage 'import'"):
            drupe.plan(source, precision="plain", exporter="signed")


def test_the_reason_why_a_plugin_refuses_a_model_is_the_error_if_no_other_claims_it(acme, source):
    body = CLAIM.format(body=f"if {QUANTIZE}:\n        raise ModelError('it is too wet')").replace(
        "@hookimpl", "from drupe.api import ModelError\n@hookimpl"
    )
    with installed(acme, body):
        assert names(drupe.plan(source)) == []
        (source / "model.txt").rename(source / "low.txt")
        (source / "high.txt").write_text("la")
        with pytest.raises(drupe.api.ModelError, match="it is too wet"):
            drupe.plan(source)


def test_the_error_for_an_unknown_pass_in_a_claim_names_the_plugin(acme, source):
    with installed(acme, claims(QUANTIZE, "Step('sgin'),", rank=1), ships=True):
        with pytest.raises(PluginError, match="rival places an unknown pass 'sgin'; did you mean") as error:
            drupe.plan(source)
        assert "makers of rival" in error.value.cure


@pytest.mark.parametrize(
    ("step", "what"),
    [
        ("Step('sign', {'bye': 'me'})", "rival gives the pass 'sign' an unknown key 'bye'; did you mean by?"),
        ("Step('sign', options={'bye': 'author'})", "rival gives the pass 'sign' an unknown key 'bye'"),
    ],
)
def test_the_error_for_an_unknown_key_in_a_claim_names_the_plugin(acme, source, step, what):
    with installed(acme, claims(QUANTIZE, f"{step},", rank=1), ships=True):
        with pytest.raises(PluginError, match=re.escape(what)) as error:
            drupe.plan(source)
        assert "makers of rival" in error.value.cure


def test_the_error_for_a_wrong_value_in_a_claim_names_the_plugin(acme, source):
    with installed(acme, claims(QUANTIZE, "Step('sign', {'by': 3}),", rank=1), ships=True):
        with pytest.raises(PluginError, match="rival gives the pass 'sign' by = 3: it must be a valid") as error:
            drupe.plan(source)
        assert "makers of rival" in error.value.cure


def test_the_error_for_a_choice_that_no_plugin_claims_names_the_plugin_that_added_it(acme, source):
    (source / "model.txt").rename(source / "low.txt")
    (source / "high.txt").write_text("la")
    body = OPTION.format(options="Option('volume', 'Silence.', choices=('silent',), extends=True)")
    with installed(acme, body), pytest.raises(PlanError, match="fills the stage 'quantize'") as error:
        drupe.plan(source, volume="silent")
    assert "--volume silent is an option of rival 1.0, which offers no pass for it here" in error.value.what
    assert error.value.cure.startswith("leave --volume silent out, ")


def test_a_crash_in_a_claim_that_counts_is_an_error_and_other_plugins_are_asked_only_if_needed(acme, source, capsys):
    body = CLAIM.format(body="return 1 / 0") + OPTION.format(options="Option('ribbon', 'A ribbon.')")
    with installed(acme, body):
        with pytest.raises(PluginCrash, match=r"drupe_claim\(\) of rival 1\.0 raised ZeroDivisionError") as error:
            drupe.plan(source, ribbon="red")
        assert re.search(r"rival\.py:\d+$", error.value.where)
    with acme.installed_here():
        assert names(drupe.plan(source)) == []
        assert capsys.readouterr().err == ""
        (source / "model.txt").rename(source / "low.txt")
        (source / "high.txt").write_text("la")
        with pytest.raises(PlanError, match=r"fills the stage 'quantize'.*it may be in rival \(not in use"):
            drupe.plan(source)
    assert "warning: rival 1.0 is not used: drupe_claim() raised ZeroDivisionError" in capsys.readouterr().err


# Options


def test_the_error_for_an_undeclared_option_suggests_the_nearest(found, source):
    with pytest.raises(UsageError, match="unknown option 'volum'; did you mean volume"):
        drupe.plan(source, volum="loud")


def test_the_error_for_a_value_that_is_not_a_choice_suggests_the_nearest(found, source):
    with pytest.raises(UsageError, match="unknown value 'lound' of --volume; did you mean loud") as error:
        drupe.plan(source, volume="lound")
    assert error.value.cure == "--volume soft or loud"


def test_the_error_for_an_option_without_effect_names_what_it_needs(found, source):
    with pytest.raises(UsageError, match="--volume has no effect with --precision plain on paper"):
        drupe.plan(source, precision="plain", volume="loud")
    with pytest.raises(UsageError, match="--author has no effect here: no pass of the plan reads it"):
        drupe.plan(source, author="me")
    with pytest.raises(UsageError, match="--longest has no effect with --no-verify"):
        drupe.plan(source, longest=7, verify=False)
    with pytest.raises(UsageError, match="--volume has no effect here: no pass of the plan reads it"):
        drupe.plan(source, passes=["sign"], volume="loud")


def test_a_step_maps_an_option_to_a_key_of_its_pass(found, source):
    assert drupe.plan(source, precision="plain", author="me").passes[0].config == {"by": "me"}


def test_settings_set_a_key_of_a_pass(found, source):
    plan = drupe.plan(source, precision="plain", settings={"sign": {"by": "me"}})
    assert plan.passes[0].config == {"by": "me"}
    with pytest.raises(UsageError, match="unknown pass or evaluator 'sing' of this plan; did you mean sign"):
        drupe.plan(source, precision="plain", settings={"sing": {"by": "me"}})
    with pytest.raises(UsageError, match="unknown key 'bye' of the pass 'sign'; did you mean by"):
        drupe.plan(source, precision="plain", settings={"sign": {"bye": "me"}})


# Passes that the user names


def test_all_named_passes_that_there_are_not_are_told(found, source):
    with pytest.raises(UsageError, match=r"unknown pass 'dib'; .*; unknown as well: 'dab', 'dub'"):
        drupe.plan(source, passes=["dib", "sign", "dab", "dub"])


def test_an_option_named_like_a_key_of_a_named_pass_sets_the_key(acme, source):
    with installed(acme, OPTION.format(options="Option('ink', 'The ink.')")):
        assert drupe.plan(source, passes=["dip"], ink="black").passes[0].config == {"ink": "black"}
        with pytest.raises(UsageError, match="ink = 'green'") as error:
            drupe.plan(source, passes=["dip"], ink="green")
        assert error.value.where == "--ink"


def test_a_named_pass_gets_its_configuration_from_the_recipe(found, source):
    assert drupe.plan(source, passes=["sign"], precision="plain", author="me").passes[0].config == {"by": "me"}


# Amending


def test_a_plugin_whose_option_is_given_amends_the_plan_and_is_named_on_changed_passes(found, source):
    assert names(drupe.plan(source)) == []
    plan = drupe.plan(source, postscript="PS")
    (sign,) = plan.passes
    assert (sign.name, sign.config, sign.amended_by, sign.brought_by) == ("sign", {"by": "PS"}, ("acme",), "acme 1.0")


AMEND = "@hookimpl\ndef drupe_amend_plan(plan, request):\n    return plan.but(passes=[{'name': '%s'}])\n"


def test_a_third_party_does_not_amend_a_plan_unless_the_user_asks_for_it(acme, source):
    body = AMEND % "sign" + OPTION.format(options="Option('ribbon', 'A ribbon.')")
    with installed(acme, body):
        assert names(drupe.plan(source)) == []
        plan = drupe.plan(source, ribbon="red")
        assert names(plan) == ["sign"] and plan.passes[0].amended_by == ("rival",)
        assert plan.amended_by == ("rival",)


def test_the_error_for_an_unknown_key_in_an_amendment_names_the_plugin(acme, source):
    body = "@hookimpl\ndef drupe_amend_plan(plan, request):\n    return plan.but(passes=[SIGN])\n"
    body += "SIGN = {'name': 'sign', 'config': {'bye': 'me'}}\n"
    body += OPTION.format(options="Option('ribbon', 'A ribbon.')")
    with installed(acme, body), pytest.raises(PluginError, match="rival gives the pass 'sign' an unknown key 'bye'"):
        drupe.plan(source, ribbon="red")


def test_a_plugin_that_removes_a_pass_is_named_in_the_plan(acme, source):
    body = "@hookimpl\ndef drupe_amend_plan(plan, request):\n    return plan.without('shout')\n"
    with installed(acme, body + OPTION.format(options="Option('ribbon', 'A ribbon.')")):
        plan = drupe.plan(source, volume="loud", ribbon="red")
        assert names(plan) == [] and plan.amended_by == ("rival",)


def test_the_error_for_an_unknown_pass_in_an_amendment_names_the_plugin(acme, source):
    body = AMEND % "sgin" + OPTION.format(options="Option('ribbon', 'A ribbon.')")
    with installed(acme, body), pytest.raises(PluginError, match="rival places an unknown pass 'sgin'") as error:
        drupe.plan(source, ribbon="red")
    assert "makers of rival" in error.value.cure


@pytest.mark.parametrize(
    ("amended", "told"),
    [
        (
            "plan.but(passes=[{'name': 'sign', 'config': {'by': [1]}}])",
            "does not work any more: the pass 'sign' refuses",
        ),
        ("plan.but(passes=[{'name': 'blot'}])", "does not work any more: the pass 'blot' needs"),
        ("plan.model_copy(update={'passes': 7})", "raised ValidationError"),
        ("plan.but(source={'reference': '/'})", "changed the source or the target of the plan"),
    ],
)
def test_an_amendment_after_which_the_plan_does_not_work_is_an_error_of_its_plugin(acme, source, amended, told):
    body = f"@hookimpl\ndef drupe_amend_plan(plan, request):\n    return {amended}\n"
    body += OPTION.format(options="Option('ribbon', 'A ribbon.')")
    with installed(acme, body), pytest.raises(PluginError, match=told) as error:
        drupe.plan(source, ribbon="red")
    assert "rival 1.0" in error.value.what and "makers of rival" in error.value.cure
