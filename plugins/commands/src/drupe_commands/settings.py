"""`--set`: keys of a configuration, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

from drupe.api import Record, UsageError


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


class Setting(Record):
    """A key and its value. owner: the name of what it is for; empty where the user named none."""

    owner: str
    key: str
    value: Any

    @property
    def typed(self) -> str:
        """How the user typed it, without the value."""
        return f"--set {self.owner}.{self.key}" if self.owner else f"--set {self.key}"


def settings_of(what: str, names: Collection[str], texts: Iterable[str]) -> list[Setting]:
    """What `--set key=value` and `--set name.key=value` say. what: the sort of things that are set up ("evaluator").

    Raises UsageError for the name of anything but those that the command uses.
    """
    settings = []
    for text in texts:
        place, value = _divided(text, "KEY=VALUE", "--set seed=3")
        owner, _, key = place.rpartition(".")
        setting = Setting(owner, key, value)
        if owner not in ("", *names):
            used = " and ".join(names)
            raise UsageError(
                f"{setting.typed} is for the {what} '{owner}', and this command uses {used}",
                cure=f"leave it out, or set a key of {used}",
            )
        settings.append(setting)
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
