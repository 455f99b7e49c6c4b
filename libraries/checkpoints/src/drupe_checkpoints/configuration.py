"""A checkpoint's config.json: typed reading, and one form for what transformers 4 and 5 spell differently."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from drupe.api import ModelError, Record, field, replace
from drupe_checkpoints.wording import shown
from drupe_files import json_object, unreadable

DEFAULT_ROPE_THETA = 10_000.0
ROPE_TYPES = {"su": "longrope", "mrope": "default"}
"""Other names of types of rotary embeddings. "mrope" has three positions for images; for text they are equal."""
LARGEST = 2**31 - 1  # the largest size that a graph's operators support
DOWNLOAD_AGAIN = "download the checkpoint again, or save it with transformers' save_pretrained()"
CORRECT = "correct it to what the model was trained with, or download the checkpoint again"


class Configuration(Record, Mapping[str, Any]):
    """The keys of one JSON file. A key whose value is null counts as missing; a flag that is null is off.

    path: the file, named in errors. spelt: what the file calls some of the keys. inside: the key of the object in the
    file that these are the keys of, with the keys of the objects around it; "" for the whole file.
    """

    path: Path
    entries: Mapping[str, Any]
    spelt: Mapping[str, str] = field(default_factory=dict)
    inside: str = ""

    @classmethod
    def read(cls, path: Path) -> Configuration:
        """Read a JSON object. Raises ModelError for any other content."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise unreadable(path, error) from error
        return cls(path, json_object(content, path.name, path, DOWNLOAD_AGAIN))

    def __getitem__(self, key: str) -> Any:
        return self.entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def with_defaults(self, defaults: Mapping[str, Any]) -> Self:
        """The configuration with values for keys that it leaves out."""
        return replace(self, entries={**defaults, **self.entries})

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """The configuration with other values for some keys."""
        return replace(self, entries={**self.entries, **values})

    def with_spellings(self, spellings: Mapping[str, str]) -> Self:
        """The configuration with more names for keys. spellings: each name that the file may have, and the new one.

        Null, which turns a flag off, stands for nothing beside a value under the new name.
        """
        said = {own: known for own, known in spellings.items() if own in self}
        given = {known: own for own, known in said.items() if self[own] is not None or known not in self}
        named = self.with_values({known: self[own] for known, own in given.items()})
        return replace(named, spelt={**self.spelt, **given})

    def require(self, key: str) -> Any:
        """The value of `key`. Raises a ModelError that names file and key where the key is missing."""
        value = self.get(key)
        if value is None:
            place = f" in {self.inside}" if self.inside else ""
            raise ModelError(f"{self.path.name} lacks the key '{key}'{place}", where=self.path, cure=DOWNLOAD_AGAIN)
        return value

    def integer(self, key: str, default: int | None = None, *, most: int = LARGEST) -> int:
        """A whole number from 1 to `most`, also one written as 4096.0.

        A missing key gives `default`, or ModelError where that is None.
        """
        value = self._value(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
            raise self._wrong(key, value, f"a whole number from 1 to {most}")
        return value

    def epsilon(self, key: str, default: float) -> float:
        """What a norm adds under its root: a finite number that is not negative."""
        value = self.number(key, default)
        if value < 0:
            raise self._wrong(key, value, "a number that is not negative")
        return value

    def number(self, key: str, default: float | None = None, *, above: float = -math.inf) -> float:
        """A finite number greater than `above`."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not above < value < math.inf:
            raise self._wrong(key, value, "a finite number" if above == -math.inf else f"a number above {above:g}")
        try:
            return float(value)
        except OverflowError as error:
            raise self._wrong(key, value, "a number that fits into a float") from error

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        value = self.require(key)
        if not isinstance(value, list) or not all(_is_finite(each) for each in value):
            raise self._wrong(key, value, "a list of numbers")
        return tuple(map(float, value))

    def flag(self, key: str, default: bool) -> bool:
        """True or false. A missing key gives `default`; null counts as false, as in transformers."""
        value = self.get(key, default)
        value = False if value is None else value
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "text")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; empty where the key is missing."""
        value = self.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self._wrong(key, value, "a list of texts")
        return tuple(value)

    def tokens(self, key: str) -> tuple[int, ...]:
        """Token ids: one, a list of them, or none."""
        value = self.get(key)
        if value is None:
            return ()
        listed = value if isinstance(value, list) else [value]
        ids = [int(each) if isinstance(each, float) and each.is_integer() else each for each in listed]
        if not all(isinstance(each, int) and not isinstance(each, bool) for each in ids):
            raise self._wrong(key, value, "a token id or a list of them")
        return tuple(ids)

    def section(self, key: str) -> Configuration | None:
        """A nested object; None where the key is missing."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._wrong(key, value, "an object")
        return Configuration(self.path, value, inside=self._place(key))

    def part(self, key: str) -> Configuration:
        """A nested object; an empty one where the key is missing."""
        return self.section(key) or Configuration(self.path, {}, inside=self._place(key))

    def rope(self, partial: float = 1.0, theta: float = DEFAULT_ROPE_THETA) -> Configuration:
        """The rotary embedding's parameters as transformers 5 keeps them: `rope_type`, `rope_theta`, the type's own.

        partial, theta: the share of a head that is rotated, and the base, where no key says it.
        transformers 4 wrote `rope_theta` and `rope_scaling` (with `type` in the oldest files) on the top level.
        """
        found = self.section("rope_scaling") or self.section("rope_parameters")
        parameters = self._one_for_all_layers(dict(found.entries)) if found else {}
        own = parameters.get("rope_theta")
        parameters["rope_theta"] = self.number("rope_theta", theta) if own is None else own
        kind = parameters.get("rope_type") or parameters.pop("type", None) or "default"
        parameters["rope_type"] = ROPE_TYPES.get(kind, kind) if isinstance(kind, str) else kind
        if parameters.get("partial_rotary_factor") is None:
            parameters["partial_rotary_factor"] = self.number("partial_rotary_factor", partial)
        original = self.get("original_max_position_embeddings")
        if original is not None:
            parameters["original_max_position_embeddings"] = original
        return Configuration(self.path, parameters, spelt=self.spelt)

    def _one_for_all_layers(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Parameters nested by layer type, where all types of this model agree."""
        nested = [parameters[kind] for kind in sorted(set(self.texts("layer_types"))) if kind in parameters]
        if not nested:
            return parameters
        if not isinstance(nested[0], dict) or any(each != nested[0] for each in nested):
            raise ModelError(
                "rotary parameters that differ between layer types are not supported",
                where=self.path,
                cure="choose a model whose layers have the same rotary parameters",
            )
        return dict(nested[0])

    def _place(self, key: str) -> str:
        return f"{self.inside}.{key}" if self.inside else key

    def _value(self, key: str, default: Any) -> Any:
        value = self.get(key)
        if value is not None:
            return value
        return self.require(key) if default is None else default

    def mistake(self, what: str) -> ModelError:
        """The error for values that do not fit together. It names keys as the file does."""
        for known, own in self.spelt.items():
            what = re.sub(rf"\b{known}\b", own, what)
        return ModelError(what, where=self.path, cure=CORRECT)

    def _wrong(self, key: str, value: Any, wanted: str) -> ModelError:
        place = f"{self.inside} of {self.path.name}" if self.inside else self.path.name
        return self.mistake(f"{key} = {shown(value)} in {place}: it must be {wanted}")


def _is_finite(value: Any) -> bool:
    """Whether a value is a number that fits into a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
