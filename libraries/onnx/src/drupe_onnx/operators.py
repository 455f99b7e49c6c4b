"""Operator tables: which operators a target runs, with which types and attributes, as data."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from drupe.api import PluginError, Record, Target, field
from drupe_onnx.traits import refuse_wrong

ACTIVATIONS = ("float32", "float16", "bfloat16")
"""The types that graphs can be built to compute in."""


class OperatorUse(Record):
    """One node of a graph, as an operator table sees it.

    domain is "" for ONNX's own operators; version is the opset version imported for it.
    inputs: the element type of each input ("float32", "uint8", ...), "" for one left out, None where it is not known.
    attributes: those set on the node, by name.
    """

    domain: str
    name: str
    version: int
    inputs: tuple[str | None, ...]
    outputs: tuple[str | None, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.domain}::{self.name}" if self.domain else self.name


class KernelSupport(Record, forbid_unknown_fields=True):
    """One registered kernel: the opset versions it supports and the element types of each type parameter.

    required: positions of inputs that must be given, although the operator's schema makes them optional.
    refused: positions of inputs that must be left out.
    attributes: the supported values of an attribute; an attribute that is not listed may have any value.
    """

    types: Mapping[str, frozenset[str]] = field(default_factory=dict)
    since: int = 1
    until: int | None = None
    required: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()
    attributes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def problems(self, use: OperatorUse, inputs: Sequence[str], outputs: Sequence[str]) -> Iterator[str]:
        """The reasons why this kernel does not run `use`. `inputs` and `outputs` name type parameters."""
        if not self.since <= use.version <= (self.until or use.version):
            yield f"opset version {use.version} is not supported"
        for label, types, parameters in (("input", use.inputs, inputs), ("output", use.outputs, outputs)):
            for position, (element, parameter) in enumerate(zip(types, _spread(parameters, len(types)), strict=True)):
                allowed = self.types.get(parameter)
                if element and allowed is not None and element not in allowed:
                    yield f"{label} {position} is {element}; supported: {', '.join(sorted(allowed))}"
        present = {position for position, element in enumerate(use.inputs) if element != ""}
        yield from (f"input {position} must be given" for position in self.required if position not in present)
        yield from (f"input {position} is not supported" for position in self.refused if position in present)
        for name, allowed_values in self.attributes.items():
            if name in use.attributes and use.attributes[name] not in allowed_values:
                yield f"attribute {name} = {use.attributes[name]!r}; supported: {', '.join(map(repr, allowed_values))}"


def _spread(parameters: Sequence[str], count: int) -> list[str]:
    """Type parameters for `count` values; the last parameter of a variadic operator is repeated."""
    last = parameters[-1] if parameters else ""
    return [parameters[i] if i < len(parameters) else last for i in range(count)]


class Operator(Record, forbid_unknown_fields=True):
    """All kernels of one operator. inputs, outputs: the type parameter of each position, as in its schema."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kernels: tuple[KernelSupport, ...]

    def refusal(self, use: OperatorUse) -> str | None:
        """Why no kernel runs `use`: the reasons of the closest kernel, of several the newest. None when one runs it."""
        found = [list(kernel.problems(use, self.inputs, self.outputs)) for kernel in reversed(self.kernels)]
        closest = min(found, key=len, default=["no kernel"])
        return closest[0] if closest else None


class Capabilities(Record, dict=True, forbid_unknown_fields=True):
    """What a provider can do in a range of runtime versions.

    runtime_versions: a version specifier, such as ">=1.20,<1.33".
    operators: by name, "Add" or "com.microsoft::MatMulNBits".
    activations: supported element types of activations, the best first; graphs are built in one of ACTIVATIONS.
    traits: properties beyond operators ("matmul_nbits_accuracy_level": 4); `drupe_onnx.traits` lists them.

    Raises PluginError for a trait that does not exist, or has a value of another type.
    """

    runtime_versions: str
    operators: Mapping[str, Operator]
    activations: tuple[str, ...]
    traits: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        refuse_wrong(self.traits)

    @functools.cached_property
    def _answers(self) -> dict[str, str | None]:
        return {}

    def refusal(self, use: OperatorUse) -> str | None:
        """Why `use` does not run, in words; None when it does."""
        asked = repr(use)  # a decoder asks the same for every block
        if asked not in self._answers:
            self._answers[asked] = self._refusal(use)
        return self._answers[asked]

    def _refusal(self, use: OperatorUse) -> str | None:
        operator = self.operators.get(use.key)
        if operator is None:
            return f"no kernel for {use.key}"
        reason = operator.refusal(use)
        return reason and f"{use.key}: {reason}"

    def serves(self, use: OperatorUse) -> bool:
        return self.refusal(use) is None

    @classmethod
    def from_json(cls, path: Path) -> Capabilities:
        """Read a table. Its format::

        {"runtime_versions": ">=1.20,<2", "activations": ["float32"], "traits": {},
         "operators": {"Add": {"inputs": ["T", "T"], "outputs": ["T"],
                               "kernels": [{"since": 7, "until": 12, "types": {"T": ["float32"]}}]}}}

        Raises PluginError for a file that is missing or has another format.
        """
        from msgspec import MsgspecError, json

        try:
            return json.decode(content := path.read_bytes(), type=cls)
        except OSError as error:
            what = f"the operator table cannot be read: {error.strerror}"
            cure = (
                "the provider's author must put the table there and ship it in the wheel (docs/plugins.md shows one, "
                "tools/operator_tables.py writes one); if the wheel has it, install the plugin again"
            )
            raise PluginError(what, where=path, cure=cure) from error
        except (MsgspecError, UnicodeDecodeError) as error:
            what = f"the operator table is wrong: {_named(error, content)}"
            raise PluginError(what, where=path, cure="see drupe_onnx.Capabilities.from_json for the format") from None
        except PluginError as error:
            raise PluginError(error.what, where=path, cure=error.cure) from None


def _named(error: Exception, content: bytes) -> str:
    """An error of msgspec, with the name of the operator that it is about, which msgspec leaves out."""
    import msgspec

    if isinstance(error, msgspec.ValidationError) and "operators[...]" in str(error):
        for name, operator in msgspec.json.decode(content)["operators"].items():
            try:
                msgspec.convert(operator, Operator)
            except msgspec.ValidationError as inner:
                return str(inner).replace("$", f"operators.{name}")
    return str(error).replace("`$.", "`")


class _Everything(Capabilities):
    """A table that refuses nothing."""

    def _refusal(self, use: OperatorUse) -> str | None:
        return None


EVERYTHING = _Everything("", {}, ACTIVATIONS)
"""For a provider without a table, which accepts by compiling: its compile pass decides what it runs."""


def capabilities_of(target: Target) -> Capabilities:
    """The operator table of a target; EVERYTHING where its provider has none."""
    return target.capabilities if isinstance(target.capabilities, Capabilities) else EVERYTHING
