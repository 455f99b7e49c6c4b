"""The target: the execution provider that a file is for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe.api import UsageError, registry
from drupe_olive_compat.answers import Ledger, changed, kept, left_out, missing
from drupe_olive_compat.components import Component, OliveFile, component

CPU = "CPUExecutionProvider"
BY_DEVICE = {"cpu": CPU, "gpu": "CUDAExecutionProvider"}
"""The provider that Olive takes where a system names a device alone."""
_ON_WEBGPU = f"{CPU} in its place: WebGPU runs a package for the processor as it is (docs/olive.md, WebGPU)"
INSTEAD = dict.fromkeys(("webgpuexecutionprovider", "jsexecutionprovider"), _ON_WEBGPU)
"""What to do about a provider for which nothing is made, by its name in lower case, where there is more to say."""
_ELSEWHERE = {
    "pythonenvironment": "another Python environment",
    "docker": "a container",
    "azureml": "a computer of Azure",
    "isolatedort": "another environment with onnxruntime",
}


def provider_of(file: OliveFile, ledger: Ledger) -> str:
    """The name of the installed provider that a file's target names; "" where no installed plugin brings it."""
    target = _system(file, "target", ledger)
    host = _system(file, "host", ledger)
    for name, system in file.systems.items():
        if system not in (target, host):
            ledger.say(f"systems.{name}", left_out("neither host nor target"))
    if host is not None:
        _say_where(host, ledger, "passes run")
        if "accelerators" in host.options and host != target:
            ledger.say(host.at("accelerators"), left_out("of the host; the target's decide on the package"))
    if target is None:
        ledger.say("target", kept(f"none is named, which means {CPU}"))
        return _installed(CPU, "target", ledger)
    if target != host:
        _say_where(target, ledger, "the package is tried")
    for option in target.options:
        if option != "accelerators":
            ledger.say(target.at(option), left_out("the package is made and tried here"))
    place = target.at("accelerators")
    return _installed(_named(target, place, ledger), place, ledger)


def _system(file: OliveFile, key: str, ledger: Ledger) -> Component | None:
    """The system that a key names, or holds."""
    value = file.settings.pop(key, None)
    if value is None:
        return None
    if isinstance(value, Mapping):
        return component(value, key, ledger)
    if str(value) not in file.systems:
        raise UsageError(
            f"there is no system '{value}' in the file", where=key, cure=f"add it to systems, or leave {key} out"
        )
    ledger.say(key, kept(f"the system {value}"))
    return file.systems[str(value)]


def _say_where(system: Component, ledger: Ledger, what: str) -> None:
    kind = system.type.casefold()
    if kind in ("localsystem", "local", ""):
        ledger.say(system.place, kept(f"{what} on this machine"))
        return
    elsewhere = _ELSEWHERE.get(kind, f"a system of the type {system.type}")
    ledger.say(system.place, changed(f"{what} in this environment, not in {elsewhere}", "start drupe there"))


def _named(target: Component, place: str, ledger: Ledger) -> str:
    """The provider's name as the file has it."""
    accelerators = target.options.get("accelerators") or []
    accelerators = accelerators if isinstance(accelerators, list) else [accelerators]
    if not accelerators:
        return CPU
    if len(accelerators) > 1:
        ledger.say(place, changed("the first of several is the target", "one run of drupe for each"))
    first = accelerators[0]
    if not isinstance(first, Mapping):  # before Olive 0.5: "cpu"
        return BY_DEVICE.get(str(first).casefold(), str(first))
    for option in first:
        if option == "memory":
            ledger.say(f"{place}.{option}", left_out("memory is bounded without it"))
    providers = first.get("execution_providers") or []
    providers = providers if isinstance(providers, list) else [providers]
    if len(providers) > 1:
        ledger.say(place, changed("the first of several providers is the target", "one run of drupe for each"))
    if providers:
        provider: Any = providers[0]  # a name, or a pair of name and library
        return str(provider[0] if isinstance(provider, list) and provider else provider)
    device = str(first.get("device") or "cpu")
    return BY_DEVICE.get(device.casefold(), device)


def _installed(name: str, place: str, ledger: Ledger) -> str:
    """The installed provider that answers to a name."""
    known = {alias: entry.ref.name for entry in registry().providers for alias in entry.ref.names}
    if name.casefold() in known:
        ledger.say(place, kept(f"{name}, Drupe's provider {known[name.casefold()]}"))
        return known[name.casefold()]
    ours = ", ".join(sorted({entry.ref.name for entry in registry().providers}))
    cure = f"a plugin can bring it (docs/plugins.md); those that are installed: {ours}"
    cure = INSTEAD.get(name.casefold(), cure)
    ledger.say(place, missing(f"no installed plugin makes packages for {name}", cure))
    return ""
