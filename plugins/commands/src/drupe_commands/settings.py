"""`--set`: keys of a configuration, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from drupe.api import UsageError


def settings_of_passes(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What `--set pass.key=value`, given several times, says: values by key, by the pass's name."""
    settings: dict[str, dict[str, Any]] = {}
    for text in texts:
        place, value = _divided(text, "PASS.KEY=VALUE", "--set quantize-weights.block_size=64")
        name, _, key = place.rpartition(".")
        if not name or not key:
            raise _malformed(text, "PASS.KEY=VALUE", "--set quantize-weights.block_size=64")
        settings.setdefault(name, {})[key] = value
    return settings


def settings_of(texts: Iterable[str]) -> dict[str, Any]:
    """What `--set key=value`, given several times, says."""
    return dict(_divided(text, "KEY=VALUE", "--set seed=3") for text in texts)


def settings_of_pass(name: str, texts: Iterable[str]) -> dict[str, Any]:
    """What `--set key=value` says of the only pass that is run; `--set name.key=value` says the same."""
    settings = {}
    for place, value in settings_of(texts).items():
        owner, _, key = place.rpartition(".")
        if owner not in ("", name):
            raise UsageError(f"--set {place} is for the pass '{owner}', and '{name}' is run alone", cure="leave it out")
        settings[key] = value
    return settings


def _divided(text: str, form: str, example: str) -> tuple[str, Any]:
    place, equals, value = text.partition("=")
    if not place or not equals:
        raise _malformed(text, form, example)
    return place.strip(), _value(value)


def _value(text: str) -> Any:
    """A value as JSON, where it is JSON; else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _malformed(text: str, form: str, example: str) -> UsageError:
    return UsageError(f"--set takes {form}, not '{text}'", cure=example)
