"""Reading the record of a package that was published before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drupe.api import RECORD, Model, ModelError, Registry, RuntimeMissing


def made_for(package: Model, found: Registry) -> str | None:
    """The provider that a package was made for, from its record; None for a package without a record.

    Raises ModelError for a damaged record, RuntimeMissing where the plugin of the provider is not installed any more,
    or not in use.
    """
    record = package.location / RECORD
    if not record.is_file():
        return None
    try:
        target = json.loads(record.read_text(encoding="utf-8"))["target"]
        provider = target["provider"]
        if not isinstance(provider, str):
            raise TypeError("the provider's name must be text")
    except (ValueError, KeyError, TypeError) as error:
        cure = "make the package again, or name the provider with --provider"
        raise ModelError("the package's record is damaged", where=record, cure=cure) from error
    if provider not in found.providers:
        _refuse_missing(provider, target, record, found)
    return provider


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
