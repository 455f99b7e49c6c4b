"""The entry module of drupe-eval-speed: its evaluators, and the command `benchmark`."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_evaluators() -> list[Ref]:
    where = "drupe_eval_speed.evaluators"
    return [
        Ref("latency", f"{where}:Latency", "time to the first token and between tokens; of other models, time of a run"),
        Ref("throughput", f"{where}:Throughput", "tokens or rows a second"),
        Ref("footprint", f"{where}:Footprint", "load time, peak memory, size on disk, and energy where it is counted"),
    ]


@hookimpl
def drupe_commands() -> list[Ref]:
    return [Ref("benchmark", "drupe_eval_speed.benchmark:benchmark", "Measure packages side by side.")]
