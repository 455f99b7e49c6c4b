"""The ladder of qualities: its passes and their order for each request, and the requests that it does not claim."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import make_checkpoint

import drupe
from drupe.api import Claim, DrupeError, Model, Request, Stage, Step, UsageError
from drupe_quantization.ladder import claim
from drupe_quantization.options import OPTIONS

PLANS = Path(__file__).with_name("plans.txt")
BUDGETS = {"target_size": "250MB", "max_kl": 0.1}
GRAPH = Model.single("onnx", Path("model.onnx"), {"weights": "float"})


def planned() -> Iterator[tuple[int, dict[str, Any], list[str]]]:
    """Bits, options, and the passes in their order, for each line of the file."""
    for line in PLANS.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        key, passes = line.split(": ")
        bits, quality, budget, prepare = key.split()
        options: dict[str, Any] = {} if quality == "-" else {"quality": quality}
        options |= {} if budget == "-" else {budget: BUDGETS[budget]}
        options |= {} if prepare == "-" else {"prepare": prepare.split("+")}
        yield int(bits), options, passes.split()


def offered(options: dict[str, Any], model: Model = GRAPH, **numerics: Any) -> list[Claim]:
    """The claims of the two stages; None for a stage without a claim."""
    request = Request("model", options=options)
    claims = [
        claim(Stage("prepare"), model, request),
        claim(Stage("quantize", {"bits": 4, **numerics}), model, request),
    ]
    return [each for each in claims if each is not None]


def steps(options: dict[str, Any], model: Model = GRAPH, **numerics: Any) -> list[Step]:
    return [step for each in offered(options, model, **numerics) for step in each.steps]


def step(name: str, options: dict[str, Any], **numerics: Any) -> Step:
    return next(each for each in steps(options, **numerics) if each.name == name)


def test_every_combination_of_options_has_the_recorded_passes() -> None:
    seen = 0
    for bits, options, passes in planned():
        try:
            found = [each.name for each in steps(options, bits=bits)]
        except UsageError as error:
            assert "weigh" in options["prepare"] and options["quality"] == "fast", error
            continue
        assert found == passes, options
        seen += 1
    assert seen > 150


@pytest.mark.parametrize("options", [{}, {"quality": "fast"}, {"quality": "best", "prepare": ["scale"]}, {"max_kl": 1}])
def test_every_step_sets_only_keys_that_its_pass_has(options: dict[str, Any]) -> None:
    from drupe.api import registry

    for each in steps(options, symmetric=True, block_size=32):
        fields = registry().passes.make(each.name).Config.model_fields
        assert {*each.config, *each.options} <= {*fields}, each.name


def test_no_pass_has_a_key_or_option_quality_or_prepare() -> None:
    for _, options, _ in planned():
        if "weigh" not in options.get("prepare", ()):
            assert not {"quality", "prepare"} & {
                key for each in steps(options) for key in (*each.config, *each.options)
            }


def test_both_claims_list_the_options_that_they_read() -> None:
    for each in offered({"quality": "fast", "prepare": ["rotate"]}):
        assert {"quality", "prepare"} <= {*each.reads}


def test_the_numerics_of_the_recipe_reach_every_pass_that_decides_on_schemes() -> None:
    asked = {"quality": "best", "prepare": ["scale"]}
    for name in ("allocate-bits", "scale-channels", "quantize-gptq"):
        assert step(name, asked, symmetric=True).config["symmetric"] is True
    assert step("quantize-weights", {}, symmetric=True).config == {"bits": 4, "symmetric": True}
    assert step("quantize-weights", {}, bits=8, symmetric=True).config == {"bits": 8, "symmetric": True}


def test_the_quality_sets_a_method_that_the_user_can_override() -> None:
    fast = step("quantize-weights", {"quality": "fast"})
    assert fast.config["method"] == "rtn"
    assert fast.options["method"] == "method"
    assert "method" not in step("quantize-weights", {"quality": "balanced"}).config
    assert step("allocate-bits", {"quality": "best"}).config == {"calibrated": True}


@pytest.mark.parametrize(
    ("asked", "option"),
    [
        ({"quality": "best"}, "method"),
        ({"quality": "best", "prepare": ["scale"]}, "method"),
        ({}, "calibration_data"),
        ({"max_kl": 0.1}, "calibration_length"),
        ({"prepare": ["rotate"]}, "calibration_seed"),
    ],
)
def test_no_step_reads_an_option_without_effect(asked: dict[str, Any], option: str) -> None:
    assert option not in {name for each in steps(asked) for name in each.options.values()}


@pytest.mark.parametrize("quality", ["fast", "balanced", "best"])
def test_scales_are_trained_behind_the_quantizer_where_that_is_asked_for(quality: str) -> None:
    names = [each.name for each in steps({"quality": quality, "recover": True})]
    assert names == [*(each.name for each in steps({"quality": quality})), "recover-scales"]


def test_eight_bits_read_neither_a_budget_nor_a_method() -> None:
    read = {name for each in steps({}, bits=8) for name in each.options.values()}
    assert read == {"block_size", "symmetric", "head_bits"}
    with pytest.raises(UsageError, match="--prepare weigh has no effect on weights of 8 bits"):
        steps({"prepare": ["weigh"]}, bits=8)
    with pytest.raises(UsageError, match="--recover has no effect on weights of 8 bits"):
        steps({"recover": True}, bits=8)
    with pytest.raises(UsageError, match="--quality best has no effect on weights of 8 bits"):
        steps({"quality": "best"}, bits=8)


@pytest.mark.parametrize("asked", [{"quality": "fast"}, {"method": "hqq"}, {"quality": "fast", "method": "rtn"}])
def test_weights_of_channels_that_the_method_does_not_read_are_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="channel weights have no effect with the method"):
        steps({**asked, "prepare": ["weigh"]})


def test_a_search_reads_the_weights_of_channels_at_any_quality() -> None:
    names = [each.name for each in steps({"quality": "fast", "method": "search", "prepare": "weigh"})]
    assert names == ["repack-weights", "weigh-channels", "quantize-weights"]


def test_an_unknown_quality_is_not_claimed() -> None:
    assert offered({"quality": "autoround", "prepare": ["scale"]}) == []


@pytest.mark.parametrize("stage", [Stage("fuse"), Stage("import"), Stage("quantize", {"bits": 3}), Stage("quantize")])
def test_other_stages_and_other_bits_are_not_claimed(stage: Stage) -> None:
    assert claim(stage, GRAPH, Request("model")) is None


def test_models_of_another_kind_are_not_claimed() -> None:
    assert offered({}, Model.single("hf", Path("checkpoint"), {})) == []


def test_a_quantized_model_needs_no_steps() -> None:
    model = Model.single("onnx", Path("model.onnx"), {"weights": "quantized"})
    claims = offered({"quality": "best"}, model)
    assert [(each.steps, each.reads) for each in claims] == [((), ()), ((), ())]


def test_quantized_parts_are_left_out() -> None:
    parts = {"encoder": {"weights": "quantized"}, "decoder": {"weights": "mixed"}, "vision": {"weights": "float"}}
    model = Model("onnx", Path("model"), parts)
    assert {each.parts for each in steps({}, model)} == {("decoder", "vision")}
    assert {each.parts for each in steps({})} == {()}


def test_the_error_for_an_option_that_needs_another_names_it() -> None:
    needs = {option.name: option.needs for option in OPTIONS if option.needs}
    assert "--quality best" in needs["calibration_data"]
    assert needs["method"] == "--precision int4 and --quality fast or balanced"


@pytest.mark.parametrize("value", ["finest", "Best"])
def test_a_value_that_is_not_a_choice_is_refused(value: str) -> None:
    quality = next(option for option in OPTIONS if option.name == "quality")
    with pytest.raises(DrupeError, match=r"unknown value .* of --quality"):
        quality.refuse(value)


def test_the_error_for_an_option_for_a_quantized_model_gives_the_reason(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    drupe.optimize(checkpoint, tmp_path / "package", quality="fast", verify=False)
    assert drupe.plan(tmp_path / "package").passes
    with pytest.raises(UsageError, match="--quality has no effect here: the model's weights are quantized already"):
        drupe.plan(tmp_path / "package", quality="best")


@pytest.mark.parametrize(("made", "asked", "held"), [("int4", "int8", "4 and 8"), ("int8", "int4", "8")])
def test_a_quantized_graph_is_not_packaged_as_of_another_precision(
    tmp_path: Path, made: str, asked: str, held: str
) -> None:
    """The cure works: with the graph's own precision its weights are kept as they are."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    drupe.optimize(checkpoint, tmp_path / "package", precision=made, quality="fast", verify=False)
    with pytest.raises(UsageError, match=f"quantized already, to {held} bits, and are not quantized again") as caught:
        drupe.plan(tmp_path / "package", precision=asked)
    assert caught.value.cure.startswith(f"--precision {made} keeps them as they are; ")
    assert drupe.plan(tmp_path / "package", precision=made).passes
