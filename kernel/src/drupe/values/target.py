"""Target: an execution provider on a machine, with its runtime, its device, and what it can do, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe.values.record import field
from drupe.values.typed import Typed


class Device(Typed):
    """A device that is in this machine. memory: bytes that a model may take, None where it is not known."""

    name: str
    kind: str
    memory: int | None = None


class RuntimePackage(Typed):
    """A runtime that has this provider in it.

    runtime: the name of a registered Runtime ("onnxruntime-genai").
    install: the command that installs it.
    """

    runtime: str
    install: str


class Target(Typed):
    """What a model is made for.

    provider: the provider's own name ("cpu"); runtime_version: of what runs it, as text; empty where it is not known.
    capabilities: what it can do, in the form that the provider's own libraries read (drupe_onnx.Capabilities).
    runtime_name: what the runtime calls the provider. device: None where none is in this machine.
    install: the command that installs the provider's preferred runtime.
    """

    provider: str
    runtime_version: str = ""
    capabilities: Any = None
    runtime_name: str = ""
    device: Device | None = None
    runtime_options: Mapping[str, Any] = field(default_factory=dict)
    install: str = ""

    @property
    def here(self) -> bool:
        """Whether the device is in this machine."""
        return self.device is not None
