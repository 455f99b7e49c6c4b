"""What the measurements of a package come to on its page: layers, samples, and a table of all others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from drupe.api import Record

LAYERS, SAMPLES = "layers", "samples"
"""Evaluators whose metrics have a part of the page of their own."""
_CASE = re.compile(r"(\w+)\[(?:layer=)?(.+)\]")

Measurement = Mapping[str, Any]


class Layers(Record):
    """By layer: the divergence that it costs alone, and the error of the hidden states behind it."""

    divergences: Mapping[str, float]
    errors: Mapping[str, float]
    whole: float
    measurement: Measurement


class Samples(Record):
    """Of each prompt: the texts of source and package in parts, and the share of tokens before they differ."""

    samples: Sequence[Mapping[str, Any]]
    measurement: Measurement


def layers_of(measured: Iterable[Measurement]) -> Layers | None:
    """What the layers cost; None where that was not measured."""
    measurement = _by(LAYERS, measured)
    if measurement is None:
        return None
    values = {each["name"]: each["value"] for each in measurement["metrics"]}
    cases: dict[str, dict[str, float]] = {"layer_divergence": {}, "hidden_error": {}}
    for name, value in values.items():
        if found := _CASE.fullmatch(name):
            cases[found[1]][found[2] if not found[2].isdecimal() else f"layer {found[2]}"] = value
    return Layers(cases["layer_divergence"], cases["hidden_error"], values["kl_divergence"], measurement)


def samples_of(measured: Iterable[Measurement]) -> Samples | None:
    """What package and source wrote; None where that was not measured."""
    measurement = _by(SAMPLES, measured)
    if measurement is None:
        return None
    return Samples([{"share": each["value"], **each["detail"]} for each in measurement["metrics"]], measurement)


def others_of(measured: Iterable[Measurement]) -> list[Measurement]:
    """The measurements that are shown as a table."""
    return [each for each in measured if each["evaluator"] not in (LAYERS, SAMPLES)]


def _by(name: str, measured: Iterable[Measurement]) -> Measurement | None:
    return next((each for each in measured if each["evaluator"] == name), None)
