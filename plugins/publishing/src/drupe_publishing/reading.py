"""Reading the record of a package that was published before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drupe.api import RECORD, Model, Registry, RuntimeMissing
from drupe_files.package_record import from_record


def made_for(package: Model, found: Registry) -> str | None:
    """The provider that a package was made for, from its record; None for a package without a record.

    Raises ModelError for a damaged record, RuntimeMissing where the plugin of the provider is not installed any more,
    or not in use.
    """
    target = from_record(package.location, _target, "make the package again, or name the provider with --provider")
    if target is None:
        return None
    provider: str = target["provider"]
    if provider not in found.providers:
        _refuse_missing(provider, target, package.location / RECORD, found)
    return provider


def _target(record: Any) -> dict[str, Any]:
    target: dict[str, Any] = record["target"]
    if not isinstance(target["provider"], str):
        raise TypeError("the provider's name must be text")
    return target


def _refuse_missing(provider: str, target: dict[str, Any], record: Path, found: Registry) -> None:
    """Raise RuntimeMissing, which says what became of it, for a provider whose plugin is not there, or not in use."""
    owner = target.get("brought_by")
    if not isinstance(owner, str) or not owner.split():
        return
    distribution = owner.split()[0]
    plugin = next((each for each in found.plugins if each.distribution == distribution), None)
    if plugin is not None and plugin.reason is None:
        return
    now, cure = "installed any more", f"pip install {distribution}"
    if plugin is not None:
        now, cure = f"in use: {plugin.reason}", str(plugin.cure)
    raise RuntimeMissing(
        f"the package was made for the provider '{provider}', which {owner} brought; it is not {now}",
        where=record,
        cure=f"{cure}, or name another provider with --provider",
    )
