"""Target: an execution provider, its runtime, a device, and what they can do, as data."""

from __future__ import annotations

import contextlib
import functools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from drupe.errors import PluginError, UsageError

if TYPE_CHECKING:
    from drupe.plan import Recipe


@dataclass(frozen=True)
class OperatorUse:
    """One node of a graph, as a capability table sees it.

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


class _Closed:
    """What pydantic reads with no other keys than there are: one more is most often one that is misspelt."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


@dataclass(frozen=True)
class KernelSupport(_Closed):
    """One registered kernel: the opset versions it serves and the element types of each type parameter.

    required: positions of inputs that must be there though the operator's schema lets them be left out.
    refused: positions of inputs that must be left out.
    attributes: for an attribute, the values that are served; one that is not listed may have any.
    """

    types: Mapping[str, frozenset[str]] = field(default_factory=dict)
    since: int = 1
    until: int | None = None
    required: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()
    attributes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def problems(self, use: OperatorUse, inputs: Sequence[str], outputs: Sequence[str]) -> Iterator[str]:
        """All that keeps this kernel from serving `use`. `inputs` and `outputs` name type parameters."""
        if not self.since <= use.version <= (self.until or use.version):
            yield f"opset version {use.version} is not served"
        for label, types, parameters in (("input", use.inputs, inputs), ("output", use.outputs, outputs)):
            for position, (element, parameter) in enumerate(zip(types, _spread(parameters, len(types)), strict=True)):
                allowed = self.types.get(parameter)
                if element and allowed is not None and element not in allowed:
                    yield f"{label} {position} is {element}; served: {', '.join(sorted(allowed))}"
        present = {position for position, element in enumerate(use.inputs) if element != ""}
        yield from (f"input {position} must be given" for position in self.required if position not in present)
        yield from (f"input {position} is not served" for position in self.refused if position in present)
        for name, allowed_values in self.attributes.items():
            if name in use.attributes and use.attributes[name] not in allowed_values:
                yield f"attribute {name} = {use.attributes[name]!r}; served: {', '.join(map(repr, allowed_values))}"


def _spread(parameters: Sequence[str], count: int) -> list[str]:
    """Type parameters for `count` values: the last one of a variadic operator serves all that follow."""
    last = parameters[-1] if parameters else ""
    return [parameters[i] if i < len(parameters) else last for i in range(count)]


@dataclass(frozen=True)
class Operator(_Closed):
    """All kernels of one operator. inputs, outputs: the type parameter of each position, as in its schema."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kernels: tuple[KernelSupport, ...]

    def refusal(self, use: OperatorUse) -> str | None:
        """Why no kernel serves `use`, by the one that comes closest, of several the newest; None when one does."""
        found = [list(kernel.problems(use, self.inputs, self.outputs)) for kernel in reversed(self.kernels)]
        closest = min(found, key=len, default=["no kernel"])
        return closest[0] if closest else None


@dataclass(frozen=True)
class Capabilities(_Closed):
    """What a provider can do in a range of runtime versions.

    runtime_versions: a version specifier, such as ">=1.20,<1.33".
    operators: by name, "Add" or "com.microsoft::MatMulNBits".
    activations: element types that run, the best first.
    traits: numbers and words that no operator table tells ("matmul_nbits_accuracy_level": 4).
    """

    runtime_versions: str
    operators: Mapping[str, Operator]
    activations: tuple[str, ...]
    traits: Mapping[str, Any] = field(default_factory=dict)
    _answers: dict[str, str | None] = field(default_factory=dict, init=False, repr=False, compare=False)

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
        """Read a table. Its form::

        {"runtime_versions": ">=1.20,<2", "activations": ["float32"], "traits": {},
         "operators": {"Add": {"inputs": ["T", "T"], "outputs": ["T"],
                               "kernels": [{"since": 7, "until": 12, "types": {"T": ["float32"]}}]}}}

        Raises PluginError for one that is not.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(cls).validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            what = f"the capability table is wrong at {'.'.join(map(str, first['loc'])) or 'its top'}: {first['msg']}"
            raise PluginError(what, where=path, cure="see drupe.api.Capabilities.from_json for its form") from None


@dataclass(frozen=True)
class Device:
    """A device that is in this machine. memory: bytes that a model may take, None where it is not known."""

    name: str
    kind: str
    memory: int | None = None


@dataclass(frozen=True)
class RuntimePackage:
    """A runtime that has this provider in it.

    runtime: the name of a registered Runtime ("onnxruntime-genai").
    install: the command that installs it.
    """

    runtime: str
    install: str


@dataclass(frozen=True)
class Target:
    """What a model is made for.

    provider: the provider's own name ("cpu"); runtime_version: of onnxruntime, as text.
    here: whether the device is in this machine; device: that device.
    """

    provider: str
    runtime_version: str
    capabilities: Capabilities
    runtime_name: str = ""
    device: Device | None = None
    runtime_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def here(self) -> bool:
        return self.device is not None


_table = functools.cache(Capabilities.from_json)
"""A provider has several tables, and most runs need one: each is read when it is asked for, and once."""


class ExecutionProvider(ABC):
    """One execution provider: tables, recipes, runtimes, devices; nothing outside it compares its name.

    A complete provider::

        class Acme(ExecutionProvider):
            name = "acme"
            summary = "Acme's accelerator cards"
            runtime_name = "AcmeExecutionProvider"
            aliases = ("acme-npu",)
            device_kind = "npu"
            versioned_by = ("onnxruntime-acme",)
            packages = (RuntimePackage("onnxruntime-genai", "pip install onnxruntime-acme"),)
            tables = (Path(__file__).with_name("operators.json"),)

            def recipes(self):
                return [Recipe("int4", "int4", (Step("build-decoder"), Step("quantize-weights", {"bits": 4})))]

            def devices(self):
                return [Device("Acme One", "npu")] if Path("/dev/acme0").exists() else []
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    runtime_name: ClassVar[str]
    """What onnxruntime calls it ("CPUExecutionProvider")."""
    aliases: ClassVar[tuple[str, ...]] = ()
    device_kind: ClassVar[str]
    """What `--device` calls what it drives: "cpu", "gpu" or "npu"."""
    versioned_by: ClassVar[tuple[str, ...]]
    """Distributions whose version tells which table holds; the first that is installed counts."""
    reference_precision: ClassVar[str] = "fp32"
    """The precision of its recipes that is nearest to a model's source, for others to be compared with."""
    verifier: ClassVar[str] = "quality"
    """The evaluator that compares a finished package with its source."""
    packages: ClassVar[tuple[RuntimePackage, ...]]
    """What brings the runtimes that can run a package, the preferred first."""
    tables: ClassVar[tuple[Path, ...]]
    """Capability tables, the newest runtime first."""

    @abstractmethod
    def recipes(self) -> Sequence[Recipe]:
        """Named plans, the default first."""

    @abstractmethod
    def devices(self) -> Sequence[Device]:
        """The devices in this machine that the provider can drive now."""

    def runtime_options(self) -> Mapping[str, Any]:
        """Provider options for the runtime, such as genai_config's `provider_options` entry."""
        return {}

    def capabilities(self, runtime_version: str | None) -> Capabilities:
        """The table for a version of the runtime; the newest one where there is no version, or a newer one.

        Raises UsageError for a runtime that is older than every table.
        """
        if runtime_version is None:
            return _table(self.tables[0])
        for path in self.tables:  # most often the first one fits, and the others need not be read
            table = _table(path)
            if SpecifierSet(table.runtime_versions, prereleases=True).contains(runtime_version):
                return table
        oldest = _lowest(_table(self.tables[-1]))
        if Version(runtime_version) < oldest:
            cure = self.packages[0].install.replace("install ", "install -U ")
            raise UsageError(f"the runtime of '{self.name}' is {runtime_version}; {oldest} or later works", cure=cure)
        return _table(self.tables[0])

    def runtime_version(self) -> str | None:
        """The installed version that decides which table holds; None where none is installed."""
        return installed_version(self.versioned_by)

    def target(self) -> Target:
        """The target that this provider is on this machine; its device is None where it is not here."""
        devices = self.devices()
        runtime_version = self.runtime_version()
        return Target(
            provider=self.name,
            runtime_version=runtime_version or "",
            capabilities=self.capabilities(runtime_version),
            runtime_name=self.runtime_name,
            device=devices[0] if devices else None,
            runtime_options=self.runtime_options(),
        )


def installed_version(distributions: Iterable[str]) -> str | None:
    """The version of the first of some distributions that is installed; None where none is."""
    for distribution in distributions:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(distribution)
    return None


def _lowest(table: Capabilities) -> Version:
    bounds = [Version(each.version) for each in SpecifierSet(table.runtime_versions) if each.operator == ">="]
    return min(bounds, default=Version("0"))
