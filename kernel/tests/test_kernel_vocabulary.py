"""What plugins declare: facts, options, recipes, claims and providers. Invalid declarations are refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from rivals import OPTION, installed
from sites import Site

import drupe
from drupe.api import (
    Claim,
    Fact,
    Form,
    Model,
    Option,
    Plan,
    PlanError,
    PluginError,
    Recipe,
    Ref,
    Request,
    RuntimeMissing,
    Stage,
    UsageError,
    default_provider,
    provider_of,
    registry,
)


def pass_names(plan: Plan) -> list[str]:
    return [each.name for each in plan.passes]


# Facts


def test_the_error_for_a_misspelt_fact_names_the_pass(found, source, monkeypatch):
    sign = found.passes.find("sign").resolve()
    monkeypatch.setattr(sign, "requires", Form("text", {"sigend": "no"}))
    with pytest.raises(PluginError, match=r"the pass 'sign' of acme 1\.0: unknown fact 'sigend'; did you mean signed"):
        drupe.plan(source, precision="plain")
    monkeypatch.setattr(sign, "requires", Form("text", {"signed": ("no", "yess")}))
    with pytest.raises(PluginError, match="unknown value 'yess' of signed; did you mean yes"):
        drupe.plan(source, precision="plain")


def test_a_fact_that_is_not_stated_has_its_default_or_counts_as_unmet(found, source):
    assert pass_names(drupe.plan(source, passes=["sign"])) == ["sign"]  # "signed" is "no" by default
    with pytest.raises(PlanError, match="'blot' needs ink = black or blue, but the model does not state ink"):
        drupe.plan(source, passes=["blot"])


def test_a_pass_may_accept_several_values_of_a_fact(found, source):
    assert pass_names(drupe.plan(source, passes=["dip", "blot"])) == ["dip", "blot"]


def test_two_plugins_cannot_declare_a_fact_differently(acme, source, capsys):
    body = "@hookimpl\ndef drupe_facts():\n    return [Fact('signed', ('never',), 'mine', 'never')]\n"
    with installed(acme, body):
        assert pass_names(drupe.plan(source, passes=["sign"])) == ["sign"]
        assert registry().facts["signed"].values == ("no", "yes")
    assert "warning: rival 1.0 cannot declare the fact 'signed' anew" in capsys.readouterr().err


# Options


def test_a_plugin_can_add_choices_to_an_option_but_cannot_restrict_a_free_one(acme):
    options = (
        "Option('volume', '', choices=('silent',), extends=True), Option('author', '', choices=('me',), extends=True)"
    )
    with installed(acme, OPTION.format(options=options)):
        assert registry().options["volume"].choices == ("soft", "loud", "silent")
        assert registry().options["author"].choices == ()


def test_choices_for_an_undeclared_option_are_a_warning(acme, capsys):
    with installed(acme, OPTION.format(options="Option('volme', '', choices=('silent',), extends=True)")):
        assert "volme" not in registry().options
    assert "warning: rival 1.0 adds choices to the option 'volme', which no plugin declares" in capsys.readouterr().err


def test_a_third_party_cannot_redefine_an_option_that_ships(acme, capsys):
    options = "Option('author', 'Mine.', type=int), Option('quiet', 'Mine.', type=bool, off='volume')"
    with installed(acme, OPTION.format(options=options)):
        assert registry().options["author"].type is str
        assert "quiet" not in registry().options
    told = capsys.readouterr().err
    assert "warning: rival 1.0 cannot have its option --author: acme brings --author" in told
    assert "warning: rival 1.0 cannot have its option --quiet: acme brings --volume" in told


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "block-size"},
        {"name": "Size"},
        {"name": ""},
        {"name": None},
        {"type": object},
        {"choices": ["a", "b"]},
        {"choices": "ab"},
        {"off": "no-size"},
        {"multiple": "yes"},
    ],
)
def test_an_option_with_an_invalid_field_is_refused(wrong):
    with pytest.raises((TypeError, ValueError)):
        Option(**{"name": "size", "help": "How large.", **wrong})


@pytest.mark.parametrize("wrong", [{"name": None}, {"name": ""}, {"name": "a b"}, {"target": 3}, {"summary": "a\nb"}])
def test_a_ref_with_an_invalid_field_is_refused(wrong: dict[str, Any]):
    with pytest.raises((TypeError, ValueError)):
        Ref(**{"name": "sign", "target": "acme:Sign", "summary": "signs", **wrong})


def test_a_fact_whose_values_are_not_a_tuple_is_refused():
    with pytest.raises(TypeError, match="Fact has values = 'yes', which is not of the type"):
        Fact("signed", "yes", "whether somebody has signed it")


def test_an_invalid_number_of_threads_is_refused():
    for threads in (-1, 100_000):
        with pytest.raises(UsageError, match="threads"):
            Request("model", threads=threads)


def test_an_invalid_precision_name_is_refused():
    with pytest.raises(UsageError, match="precision = 4, which is not of the type str"):
        Request("text", precision=4)


def test_values_of_another_type_than_a_request_declares_are_refused():
    with pytest.raises(UsageError, match="threads = 'two', which is not of the type int"):
        Request("text", threads="two")
    with pytest.raises(UsageError, match="has settings ="):
        Request("text", settings={"shout": 3})


def test_a_list_for_an_option_of_one_value_is_refused(found, source):
    with pytest.raises(UsageError, match="--volume takes one value, not a list of 2"):
        drupe.plan(source, volume=["soft", "loud"])


# Recipes and claims


def test_a_recipe_with_an_unknown_stage_is_refused():
    with pytest.raises(ValueError, match="unknown stage 'qantize'; did you mean quantize"):
        Recipe("mine", "int4", (Stage("qantize"),))


@pytest.mark.parametrize("wrong", [{"steps": "sign"}, {"steps": ("sign",)}, {"rank": "high"}, {"name": None}])
def test_a_claim_with_a_field_of_the_wrong_type_is_refused(wrong):
    with pytest.raises(TypeError, match=f"Claim has {next(iter(wrong))} = "):
        Claim(**{"name": "mine", "steps": (), **wrong})


# Providers

OTHER = """
from acme import Paper
class {name}(Paper):
    name = "{lower}"
    def devices(self):
        return super().devices() if {here} else []
"""
A6 = "[__import__('drupe.api').api.Device('A6', 'npu')]"
PROVIDERS = """
@hookimpl
def drupe_execution_providers():
    return [Ref(name, f"theirs:{name.title()}", "theirs", preference=at) for name, at in %s.items()]
"""


@contextmanager
def providers(acme: Site, ships: bool, **preferences: tuple[int, bool]) -> Iterator[None]:
    code = "".join(OTHER.format(name=name.title(), lower=name, here=here) for name, (_, here) in preferences.items())
    acme.folder.joinpath("theirs.py").write_text(code)
    with installed(acme, PROVIDERS % {name: at for name, (at, _) in preferences.items()}, ships=ships):
        yield


def test_the_default_provider_is_the_most_preferred_with_a_device_on_this_machine(acme):
    with providers(acme, True, card=(5, True), stone=(9, False)):
        assert default_provider(registry()).name == "card"


def test_a_third_partys_provider_is_not_the_default_while_a_shipped_one_has_a_device(acme):
    with providers(acme, False, card=(5, True)):
        assert default_provider(registry()).name == "paper"
    code = (acme.folder / "acme.py").read_text()
    (acme.folder / "acme.py").write_text(code.replace('[Device("A4", "npu", 10_000)]', "[]"))
    (acme.folder / "theirs.py").write_text((acme.folder / "theirs.py").read_text().replace("super().devices()", A6))
    with acme.installed_here():
        assert default_provider(registry()).name == "card"


def test_no_provider_with_a_device_is_an_error(found, monkeypatch):
    monkeypatch.setattr(found.providers.find("paper").resolve(), "devices", lambda self: [])
    with pytest.raises(PlanError, match="no installed provider has a device in this machine"):
        default_provider(found)


def test_the_error_for_a_missing_provider_of_a_package_names_the_distribution_that_brought_it(acme, source, tmp_path):
    with providers(acme, False, card=(5, True)):
        drupe.optimize(source, tmp_path / "out", provider="card")
    package = Model.single("text", tmp_path / "out", {})
    for info in acme.folder.glob("rival-*.dist-info"):
        info.rename(acme.folder / "gone")
    with acme.installed_here():
        with pytest.raises(
            RuntimeMissing, match=r"provider 'card', which rival 1\.0 brought; it is not installed any"
        ) as error:
            provider_of(package, None, registry())
        assert error.value.cure.startswith("pip install rival")
        assert provider_of(package, "paper", registry()).name == "paper"


def test_the_error_for_a_provider_of_a_package_that_is_left_out_names_its_plugin_alone(acme, source, tmp_path):
    with providers(acme, False, card=(5, True)):
        drupe.optimize(source, tmp_path / "out", provider="card")
    acme.allow()
    with acme.installed_here(), pytest.raises(RuntimeMissing) as error:
        provider_of(Model.single("text", tmp_path / "out", {}), None, registry())
    assert error.value.what.endswith("which rival 1.0 brought; it is not in use: DRUPE_PLUGINS leaves it out")
    assert error.value.cure.startswith("add rival to DRUPE_PLUGINS")


def test_the_error_for_something_left_out_by_the_allow_list_says_so(acme, source):
    with providers(acme, False, card=(5, True)):
        pass
    acme.allow()
    with acme.installed_here(), pytest.raises(UsageError, match=r"unknown provider 'card'.*rival.*left out by DRUPE_P"):
        drupe.plan(source, provider="card")


def test_an_option_with_an_empty_text_is_refused(found, source):
    for option in ("volume", "author"):
        with pytest.raises(UsageError, match=f"--{option} is empty"):
            drupe.plan(source, **{option: ""})


@pytest.mark.parametrize("passes", ["sign", {"sign": {"by": "me"}}, 7, [7]])
def test_passes_that_are_no_list_of_names_and_steps_are_refused(found, source, passes):
    """The keys of a mapping would be taken, and its configurations left out."""
    with pytest.raises(UsageError, match="what is asked for has passes = "):
        drupe.plan(source, passes=passes)


def test_a_source_that_is_neither_text_nor_path_is_refused(found):
    for reference in (None, 7):
        with pytest.raises(UsageError, match=f"has reference = {reference}, which is not of the type str"):
            drupe.plan(reference)
