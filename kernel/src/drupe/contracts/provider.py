"""ExecutionProvider: one way to run models on a kind of device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from drupe.values.recipe import Recipe
from drupe.values.target import Device, RuntimePackage, Target


class ExecutionProvider(ABC):
    """One execution provider: recipes, runtimes, devices; nothing outside it compares its name.

    A complete provider::

        class Acme(ExecutionProvider):
            name = "acme"
            summary = "Acme's accelerator cards"
            runtime_name = "AcmeExecutionProvider"
            packages = (RuntimePackage("onnxruntime", "pip install onnxruntime-acme"),)

            def recipes(self):
                stages = (Stage("import"), Stage("quantize", {"bits": 4}), Stage("package"))
                return [Recipe("acme-int4", "int4", stages)]

            def devices(self):
                return [Device("Acme One", "npu")] if Path("/dev/acme0").exists() else []

    Its Ref says what a user can choose it by, so that nothing is imported for a choice that falls on another::

        Ref("acme", "acme_npu.provider:Acme", "Acme's cards", also=("AcmeExecutionProvider",), device="npu")

    A provider whose runtime is described by a table of operators extends `drupe_onnx.TableProvider`.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    runtime_name: ClassVar[str]
    """What its runtime calls it ("CPUExecutionProvider")."""
    packages: ClassVar[tuple[RuntimePackage, ...]]
    """What brings the runtimes that can run a package, the preferred first."""
    reference_precision: ClassVar[str | None] = "fp32"
    """The recipe whose result is nearest to a model's source, for others to be compared with. Where the provider has
    none of that name, or it quantizes, the reference is made for another provider."""

    @abstractmethod
    def recipes(self) -> Sequence[Recipe]:
        """One recipe for each precision, the default first."""

    @abstractmethod
    def devices(self) -> Sequence[Device]:
        """The devices in this machine that the provider can drive now."""

    def runtime_options(self) -> Mapping[str, Any]:
        """Provider options for the runtime, such as genai_config's `provider_options` entry."""
        return {}

    def describe(self) -> Mapping[str, Any]:
        """What `drupe providers NAME` shows by label beside device and runtime; what is a number is one."""
        return {}

    def target(self) -> Target:
        """The target that this provider is on this machine; its device is None where it is not here."""
        return Target(
            provider=self.name,
            runtime_name=self.runtime_name,
            device=next(iter(self.devices()), None),
            runtime_options=self.runtime_options(),
            install=self.packages[0].install if self.packages else "",
        )
