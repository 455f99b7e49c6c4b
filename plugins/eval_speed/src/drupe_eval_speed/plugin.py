"""The entry module of drupe-eval-speed: its evaluators, and the command `benchmark`."""

from drupe.api import Ref, hookimpl

_EVALUATORS = (
    ("latency", "Latency", "time to the first token and between tokens; for other models, the time of a run"),
    ("throughput", "Throughput", "tokens, rows or runs a second"),
    ("footprint", "Footprint", "load time, peak memory, size on disk, and energy where the machine counts it"),
)


@hookimpl
def drupe_evaluators() -> list[Ref]:
    return [Ref(name, f"drupe_eval_speed.evaluators:{target}", summary) for name, target, summary in _EVALUATORS]


@hookimpl
def drupe_commands() -> list[Ref]:
    return [Ref("benchmark", "drupe_eval_speed.benchmark:benchmark", "Measure how fast packages are, side by side.")]
