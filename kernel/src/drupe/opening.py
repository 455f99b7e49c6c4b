"""Opening a model for running: which provider, which runtime."""

from __future__ import annotations

import json

from drupe.check import runtime_for
from drupe.engine import resolve
from drupe.errors import RuntimeMissing
from drupe.model import Model
from drupe.plugins import registry
from drupe.publishing import RECORD
from drupe.runtime import Session

DEFAULT_PROVIDER = "cpu"


def open_package(reference: str, provider_name: str | None, max_length: int | None) -> Session:
    """Open what `reference` names. Raises RuntimeMissing where nothing here can run it."""
    found = registry()
    model = resolve(reference, {})
    provider = found.provider(provider_name or made_for(model) or DEFAULT_PROVIDER)
    target = provider.target()
    if not target.here:
        raise RuntimeMissing(f"no device for '{provider.name}' is here", cure="drupe providers shows what is")
    runtime = runtime_for(model, target, provider, found)
    if isinstance(runtime, str):
        raise RuntimeMissing(f"'{reference}' cannot be run here: {runtime}")
    return runtime.open(model, target, max_length=max_length)


def made_for(model: Model) -> str | None:
    """The provider that a package's own record names."""
    record = model.location / RECORD
    if not record.is_file():
        return None
    name: str | None = json.loads(record.read_text(encoding="utf-8"))["target"]["provider"]
    return name
