"""The ladder: the passes that quantize weights at each quality, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from drupe.api import Claim, Model, Record, Request, Stage, Step, UsageError, replace, several

NAME = "ladder"
"""The claims' name, by which a user can choose them."""
EMBEDDINGS = "feature-extraction"
DEFAULT = "balanced"
METHODS = {"fast": "rtn", "balanced": "search", "best": "search"}
"""The method for levels of less than 8 bits, by quality. At `best` it is for the levels that GPTQ does not find."""

_SCHEME = {key: key for key in ("block_size", "symmetric", "head_bits")}
"""Configuration keys that decide on a scheme, and the options that set them."""
_BLOCKS = {key: _SCHEME[key] for key in ("block_size", "symmetric")}
_FIXED = {key: _SCHEME[key] for key in ("block_size", "head_bits")}
_BYTES = {key: key for key in ("target_size", "bits_per_weight")}
_BUDGET = {**_BYTES, "max_kl": "max_kl"}
_CALIBRATE = {key: key for key in (f"calibration_{name}" for name in ("data", "sequences", "length", "seed"))}
_WHICH_TEXT = {key: _CALIBRATE[key] for key in ("calibration_data", "calibration_seed")}
"""The options that set the amount of text are only for passes that calibrate weights. Other passes need little text."""
_DECIDED_BY = ("quality", "prepare", "recover")
"""Options that configure no pass: they decide which passes are used."""


def claim(stage: Stage, model: Model, request: Request) -> Claim | None:
    """The ladder's claim for a stage; None for other models and stages, and for a quality that it does not know."""
    asked = Asked.of(request.options, model)
    if model.kind != "onnx" or asked.quality not in METHODS:
        return None
    numerics = {key: value for key, value in stage.numerics.items() if key != "bits"}
    match stage.name, stage.numerics.get("bits"):
        case "prepare", _:
            return _offer(_prepare(asked), model)
        case "quantize", 4:
            _refuse_other_bits(model, 4)
            return _offer(_to_four_bits(asked, numerics), model)
        case "quantize", 8:
            _refuse_other_bits(model, 8)
            return _offer(_to_eight_bits(asked, numerics), model)
    return None


def _refuse_other_bits(model: Model, asked: int) -> None:
    """Raise UsageError for a graph whose weights are all quantized already, to other bits than those asked for.

    4 bits are also the right precision for a graph of which some weights have 2 or 8.
    """
    if not all(facts.get("weights") == "quantized" for facts in model.parts.values()):
        return
    from drupe_onnx import stored_bits

    held = stored_bits(model.location)
    fitting = 4 if held & {2, 4} else 8
    if held and asked != fitting:
        raise UsageError(
            f"the model's weights are quantized already, to {' and '.join(map(str, sorted(held)))} bits, and are not "
            "quantized again",
            where=f"--precision int{asked}",
            cure=f"--precision int{fitting} keeps them as they are; for int{asked}, start from "
            "the checkpoint in floating point",
        )


def _offer(steps: Iterator[Step], model: Model) -> Claim:
    """The claim with the steps, for the parts that are not quantized yet; without steps where all parts are."""
    left = tuple(role for role, facts in model.parts.items() if facts.get("weights") != "quantized")
    if not left:
        return Claim(NAME, (), because="the model's weights are quantized already")
    roles = left if len(left) < len(model.parts) else ()
    return Claim(NAME, tuple(replace(step, parts=roles) for step in steps), reads=_DECIDED_BY)


class Asked(Record):
    """What the user asked for, as far as it decides which passes are used.

    prepare: the values of --prepare. budgets: the options that limit bytes or divergence. budget: whether there is a
    limit of bytes or of divergence; limited: whether the limit is one of divergence. method: how levels are found.
    recovers: whether scales are trained when levels are found.
    """

    quality: str
    prepare: frozenset[str]
    budgets: Mapping[str, str]
    budget: bool
    limited: bool
    method: str
    recovers: bool

    @classmethod
    def of(cls, options: Mapping[str, Any], model: Model) -> Asked:
        """Embeddings have no KL divergence, so no limit of it."""
        quality = options.get("quality", DEFAULT)
        budgets = _BYTES if model.task == EMBEDDINGS else _BUDGET
        return cls(
            quality=quality,
            prepare=frozenset(several(options.get("prepare", ()))),
            budgets=budgets,
            budget=any(option in options for option in budgets.values()),
            limited="max_kl" in budgets and "max_kl" in options,
            method=options.get("method", METHODS.get(quality, "")),
            recovers=bool(options.get("recover")),
        )

    @property
    def calibrates(self) -> bool:
        """Whether weights are calibrated on a text."""
        return self.quality == "best"


def _prepare(asked: Asked) -> Iterator[Step]:
    """The steps before bits are assigned: take over matrices that are already quantized, rotate, smooth."""
    yield Step("repack-weights", options={"block_size": "block_size"})
    if "rotate" in asked.prepare:
        yield Step("rotate-weights")
    if "smooth" in asked.prepare:
        yield Step("smooth-activations", options=_CALIBRATE)


def _to_four_bits(asked: Asked, numerics: Mapping[str, Any]) -> Iterator[Step]:
    """The steps: fast rounds to nearest; balanced searches, and gives more bits to matrices that need them; best
    measures and calibrates.

    Channels are scaled and weighed after bits have been assigned to the matrices.
    """
    _refuse_useless_weights(asked)
    found_by = {} if asked.calibrates else {"method": "method"}
    rounding = {"method": METHODS["fast"]} if asked.quality == "fast" else {}
    if asked.calibrates or asked.limited:
        fixed = {key: value for key, value in numerics.items() if key in _FIXED}
        yield Step("measure-sensitivity", fixed, {**_WHICH_TEXT, **_FIXED})
    if asked.quality != "fast" or asked.budget:
        calibrated = {"calibrated": True} if asked.calibrates else {}
        yield Step("allocate-bits", {**numerics, **calibrated}, {**asked.budgets, **_SCHEME})
    if "scale" in asked.prepare:
        yield Step("scale-channels", {**numerics, **rounding}, {**_CALIBRATE, **_BLOCKS, **found_by})
    if "weigh" in asked.prepare:
        yield Step("weigh-channels", options=_CALIBRATE)
    if asked.calibrates:
        yield Step("quantize-gptq", numerics, {**_CALIBRATE, **_SCHEME})
    else:
        yield Step("quantize-weights", {"bits": 4, **numerics, **rounding}, {**found_by, **_SCHEME})
    if asked.recovers:
        yield Step("recover-scales", options=_CALIBRATE)


def _to_eight_bits(asked: Asked, numerics: Mapping[str, Any]) -> Iterator[Step]:
    """The steps for 8 bits, which are rounded to nearest. What asks for more is refused."""
    useless = [f"--prepare {each}" for each in ("scale", "weigh") if each in asked.prepare]
    useless += ["--quality best"] if asked.calibrates else []
    useless += ["--recover"] if asked.recovers else []
    if useless:
        raise UsageError(
            f"{useless[0]} has no effect on weights of 8 bits: they are rounded to nearest",
            cure=f"leave {useless[0]} out, or --precision int4",
        )
    yield Step("quantize-weights", {"bits": 8, **numerics}, _SCHEME)


def _refuse_useless_weights(asked: Asked) -> None:
    """Raise UsageError where channel weights would be computed for a method that does not use them.

    At `best`, `quantize-gptq` refuses channel weights itself.
    """
    if "weigh" in asked.prepare and asked.method != "search":
        raise UsageError(
            f"channel weights have no effect with the method '{asked.method}'",
            where="--prepare weigh",
            cure="--method search, or leave --prepare weigh out",
        )
