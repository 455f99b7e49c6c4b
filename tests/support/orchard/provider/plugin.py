"""The plugin registers the provider, its runtime, a pass, and a flag."""

from __future__ import annotations

from drupe.api import Option, Ref, hookimpl


@hookimpl
def drupe_execution_providers():
    summary = "Acme's card, as it is simulated"
    return [Ref("acme-npu", "orchard.provider.acme:Acme", summary, also=("AcmeExecutionProvider",), device="npu")]


@hookimpl
def drupe_runtimes():
    return [Ref("acme-simulator", "orchard.provider.acme:Simulator", "runs graphs as Acme's card would")]


@hookimpl
def drupe_passes():
    return [Ref("label-graph", "orchard.provider.acme:LabelGraph", "writes on a graph who it is for")]


@hookimpl
def drupe_options():
    return [Option("label", "What is written on the graph.", group="Orchard")]
