"""The publisher `local-folder`."""

from __future__ import annotations

import time
from pathlib import Path

from drupe.api import Model, Outcome, Plan, Progress, Publisher, Runner, registry


class LocalFolder(Publisher):
    """Makes packages in folders, completely or not at all."""

    name = "local-folder"

    def carry_out(
        self,
        plan: Plan,
        source: Model,
        output: Path,
        *,
        force: bool = False,
        progress: Progress | None = None,
        runner: Runner | None = None,
        started: float | None = None,
    ) -> Outcome:
        from drupe_publishing.running import carry_out

        started = time.perf_counter() if started is None else started
        return carry_out(plan, source, output, force, progress or Progress(), runner, started)

    def source_of(self, plan: Plan) -> Model:
        from drupe_publishing.repeating import source_of

        return source_of(plan, registry())

    def fixed(self, plan: Plan, source: Model) -> Plan:
        from drupe_publishing.repeating import fixed_plan

        return fixed_plan(plan, source, registry())

    def made_for(self, package: Model) -> str | None:
        from drupe_publishing.reading import made_for

        return made_for(package, registry())
