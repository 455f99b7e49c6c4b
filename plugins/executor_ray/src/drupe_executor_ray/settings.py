"""The settings of the executor, and what a trial needs of a machine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from drupe.api import UsageError
from drupe_files import bytes_of


class RayConfig(BaseModel):
    """What stands beside the name in `search.executor`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    address: str = Field(default="", description="of a Ray cluster (HOST:PORT, auto); without one, Ray is started here")
    workers: int | None = Field(
        default=None, ge=1, description="how many trials run beside each other; else what the machines have room for"
    )
    cpus: float | None = Field(
        default=None, gt=0, description="processors of each trial; else as many as its package has threads"
    )
    gpus: float = Field(default=0, ge=0, description="GPUs of each trial")
    memory: str = Field(default="", description="memory of each trial, as 16GB")
    resources: dict[str, float] = Field(default_factory=dict, description="Ray's other resources of each trial")
    storage: str = Field(
        default="", description="folder or URL (fsspec) for the model and the cache, which every machine can reach"
    )
    retries: int = Field(default=2, ge=0, description="how often a trial is begun again when its worker has died")

    @field_validator("memory")
    @classmethod
    def _is_size(cls, value: str) -> str:
        try:
            if value:
                bytes_of(value, "memory")
        except UsageError as error:
            raise ValueError(error.what) from None
        return value

    def needs(self, plan: Mapping[str, Any], machine: float | None) -> dict[str, float]:
        """What a trial with a plan needs, by Ray's names. machine: the processors, where there is only one machine."""
        cpus = self.cpus
        if cpus is None and machine is not None and self.workers is not None:
            cpus = machine / self.workers if self.workers > machine else float(machine // self.workers)
        needed = {"CPU": float(plan["threads"]) if cpus is None else cpus, "GPU": self.gpus, **self.resources}
        if self.memory:
            needed["memory"] = bytes_of(self.memory, "memory")
        return {name: amount for name, amount in needed.items() if amount}


def room(machines: Iterable[Mapping[str, float]], needed: Mapping[str, float]) -> int:
    """How many trials the machines have room for at once."""
    return sum(
        min(math.floor(machine.get(name, 0) / amount + 1e-9) for name, amount in needed.items()) for machine in machines
    )
