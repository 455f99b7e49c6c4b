"""Reading the record of a package that was published before."""

from __future__ import annotations

import json
from typing import Any

from drupe.api import RECORD, Model, ModelError, Registry, RuntimeMissing


def made_for(package: Model, found: Registry) -> str | None:
    """The provider that a package was made for, from its record; None for a package without a record.

    Raises ModelError for a damaged record, RuntimeMissing where the plugin of the provider is not installed any more.
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
    if provider not in found.providers and (gone := _uninstalled(target, found)):
        raise RuntimeMissing(
            f"the package was made for the provider '{provider}', which {gone} brought; it is not installed any more",
            where=record,
            cure=f"pip install {gone.split()[0]}, or name another provider with --provider",
        )
    return provider


def _uninstalled(target: dict[str, Any], found: Registry) -> str | None:
    """The distribution that brought a package's provider, if it is not installed any more."""
    owner = target.get("brought_by")
    installed = {plugin.distribution for plugin in found.plugins}
    return owner if isinstance(owner, str) and owner.split()[0] not in installed else None
