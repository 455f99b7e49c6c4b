"""The verifier `child-process`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from drupe.api import Check, Job, Metric, Model, PlannedCheck, Progress, Request, Target, Verifier


class InChildProcess(Verifier):
    """Tries a package in a separate process, so a runtime that crashes does not end the run."""

    name = "child-process"

    def plan(self, source: Model, request: Request) -> tuple[PlannedCheck, Collection[str]]:
        from drupe_verification.planning import plan_check

        return plan_check(source, request)

    def refuse(self, source: Model, planned: PlannedCheck) -> None:
        from drupe_verification.planning import refuse_unmeasurable

        refuse_unmeasurable(source, planned)

    def check(self, package: Model, job: Job, target: Target) -> Check:
        from drupe_verification.trying import try_package

        return try_package(package, job, target)

    def evaluate(
        self,
        package: str,
        against: str | None = None,
        *,
        evaluator: str | None = None,
        config: Mapping[str, Any] | None = None,
        provider: str | None = None,
        progress: Progress | None = None,
    ) -> tuple[Metric, ...]:
        from drupe_verification.measuring import evaluate

        return evaluate(package, against, evaluator, config or {}, provider, progress or Progress())
