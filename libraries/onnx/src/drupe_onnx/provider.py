"""TableProvider: an execution provider whose operator tables say what it runs."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from drupe.api import ExecutionProvider, PluginError, Target, UsageError, installed_version
from drupe_onnx.operators import Capabilities
from drupe_onnx.target_title import provider_title

_read = functools.cache(Capabilities.from_json)
"""Reads a table when it is first needed: a provider has several tables, and most runs need only one."""


class TableProvider(ExecutionProvider):
    """An execution provider of onnxruntime: an operator table for each range of its versions.

    A complete provider::

        class Acme(TableProvider):
            name = "acme"
            summary = "Acme's accelerator cards"
            runtime_name = "AcmeExecutionProvider"
            versioned_by = ("onnxruntime-acme",)
            packages = (RuntimePackage("onnxruntime-genai", "pip install onnxruntime-acme"),)
            tables = (Path(__file__).with_name("operators.json"),)

            def recipes(self):
                return (Recipe("acme-int4", "int4", quantized_stages(4, activations="float16")),)

            def devices(self):
                return (Device("Acme One", "npu"),) if Path("/dev/acme0").exists() else ()
    """

    versioned_by: ClassVar[tuple[str, ...]]
    """Distributions whose version decides which table is used; the first that is installed counts."""
    tables: ClassVar[tuple[Path, ...]]
    """Operator tables, the one for the newest runtime first."""

    def capabilities(self, runtime_version: str | None) -> Capabilities:
        """The table for a version of the runtime; the newest table for an unknown or a newer version.

        Raises UsageError for a runtime that is older than every table.
        """
        if runtime_version is None:
            return self._table(0)
        for at in range(len(self.tables)):  # usually the first table fits, and the others are not read
            table = self._table(at)
            if SpecifierSet(table.runtime_versions, prereleases=True).contains(runtime_version):
                return table
        oldest = _lowest(self._table(-1))
        if Version(runtime_version) < oldest:
            cure = self.packages[0].install.replace("install ", "install -U ")
            raise UsageError(
                f"the runtime of '{self.name}' has version {runtime_version}; drupe supports {oldest} and later",
                cure=cure,
            )
        return self._table(0)

    def _table(self, at: int) -> Capabilities:
        """One of the tables. Raises PluginError, which names the provider's plugin, for one that is wrong."""
        try:
            return _read(self.tables[at])
        except PluginError as error:
            what = f"the provider {provider_title(self.name)}: {error.what}"
            raise PluginError(what, where=error.where, cure=error.cure) from error

    def runtime_version(self) -> str | None:
        """The installed version that decides which table is used; None where none is installed."""
        return installed_version(self.versioned_by)

    def describe(self) -> Mapping[str, Any]:
        """The content of the table that is used on this machine."""
        table = self.capabilities(self.runtime_version())
        return {
            "operators": len(table.operators),
            "table for runtimes": table.runtime_versions,
            "activations": list(table.activations),
        }

    def target(self) -> Target:
        """This provider's target on this machine; its device is None where the machine has none."""
        devices = self.devices()
        runtime_version = self.runtime_version()
        return Target(
            provider=self.name,
            runtime_version=runtime_version or "",
            capabilities=self.capabilities(runtime_version),
            runtime_name=self.runtime_name,
            device=devices[0] if devices else None,
            runtime_options=self.runtime_options(),
            install=self.packages[0].install,
        )


def _lowest(table: Capabilities) -> Version:
    bounds = [Version(each.version) for each in SpecifierSet(table.runtime_versions) if each.operator == ">="]
    return min(bounds, default=Version("0"))
