"""How a search scales to many workers: what the driver, the study and the storage cost, measured here, and a simulation
of a search with these costs.

Measured: proposing and telling (Optuna, SQLite) with more and more trials in the study, composing a plan, giving a task
to Ray and taking its result, finding the frontier, copying a model through a storage. Assumed: how long a trial takes,
the size of a model, the bandwidth of a shared storage. docs/searching-at-scale.md has the results of one machine.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from drupe.api import Metric, Request
from drupe_console import table
from drupe_executor_ray.executor import RayExecutor
from drupe_executor_ray.settings import RayConfig
from drupe_executor_ray.storage import Storage
from drupe_search_optuna.goals import Objective, frontier, objectives_of
from drupe_search_optuna.settings import SearchSettings
from drupe_search_optuna.spaces import Parameter
from drupe_search_optuna.study import Study
from drupe_search_optuna.trials import Measuring, Trial

SIZES = (100, 300, 1000, 2000)
WORKERS = (1, 10, 100, 300, 1000)
SECONDS = (60.0, 600.0)
"""How long a trial takes, in the simulation."""
RUNNING = (0, 30, 100, 300)
"""Trials that run while values are proposed."""
PER_WORKER = 10
"""Trials of the simulated search, for each worker."""
SAMPLERS = ("grid", "random", "tpe", "nsga2")
REPEATS = 5
PARAMETERS = (
    Parameter(("options", "block_size"), choices=(16, 32, 64, 128, 256)),
    Parameter(("options", "symmetric"), choices=(True, False)),
    Parameter(("settings", "quantize-weights", "head_bits"), choices=(4, 8)),
    Parameter(("options", "bits_per_weight"), low=4.0, high=8.0),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="trials in the study")
    parser.add_argument("--model-gb", type=float, default=16.0, help="assumed size of a model")
    parser.add_argument("--storage-gbps", type=float, default=10.0, help="assumed bandwidth of the storage, GB/s")
    parser.add_argument("--json", type=Path, help="write the numbers to this file as well")
    parser.add_argument("--measured", type=Path, help="take the costs from such a file, and only simulate")
    chosen = parser.parse_args()
    costs = json.loads(chosen.measured.read_text())["costs"] if chosen.measured else measured(chosen.sizes)
    simulated = [
        simulate(costs, sampler, workers, seconds)
        for sampler in ("grid", "tpe")
        for seconds in SECONDS
        for workers in WORKERS
    ]
    starts = [start(workers, chosen.model_gb, chosen.storage_gbps) for workers in WORKERS]
    show(costs, simulated, starts, chosen.model_gb, chosen.storage_gbps)
    if chosen.json:
        chosen.json.write_text(json.dumps({"costs": costs, "simulated": simulated, "starts": starts}, indent=1) + "\n")


# What is measured


def measured(sizes: Sequence[int]) -> dict[str, Any]:
    """Seconds of CPU and disk that each step takes here; those of the study by sampler and trials in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = one_plan(folder)
        study = study_costs(folder, sizes, plan.document)
        return {
            "study": study,
            "running": running_costs(folder, plan.document),
            "plan": plan.seconds,
            "plan_bytes": len(json.dumps(plan.document)),
            **ray_costs(plan.document),
            "frontier": {str(size): frontier_seconds(size) for size in sizes},
            "storage_mb_per_s": storage_rate(folder),
        }


def taken(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


@dataclass(frozen=True)
class OnePlan:
    seconds: float
    document: Mapping[str, Any]


def one_plan(folder: Path) -> OnePlan:
    """The plan of a trial on the model that drupe brings, and the time that composing it takes."""
    model = files("drupe_demo") / "model"

    def asked(values: Mapping[str, Any]) -> Request:
        return Request(str(model), options=dict(values))

    measuring = Measuring(asked, SearchSettings(), folder)
    task = measuring.task({"block_size": 32})
    times = [taken(lambda: measuring.task({"block_size": 64})) for _ in range(REPEATS)]
    return OnePlan(statistics.median(times), task["plan"])


def goals() -> list[Objective]:
    return objectives_of((), trial_of(1, random.Random(0), {}))


def trial_of(number: int, chance: random.Random, plan: Mapping[str, Any]) -> Trial:
    """A trial with metrics at random."""
    metrics = {
        "bytes": Metric("bytes", float(chance.randrange(10**8, 10**9)), "bytes", "lower"),
        "kl": Metric("kl", chance.random(), "nats/token", "lower"),
    }
    values = {each.name: each.drawn(chance) for each in PARAMETERS}
    return Trial(number, values, metrics, ("kl",), plan=plan)


def trials_of(size: int) -> list[Trial]:
    chance = random.Random(size)
    return [trial_of(number, chance, {}) for number in range(1, size + 1)]


def frontier_seconds(size: int) -> float:
    trials = trials_of(size)
    return taken(lambda: frontier(trials, goals()))


def study_costs(folder: Path, sizes: Sequence[int], plan: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Seconds to propose values and to tell what came of them, by sampler and by the number of trials in the study.

    Each measurement begins with a copy of a study that has so many trials.
    """
    found: dict[str, dict[str, dict[str, float]]] = {sampler: {} for sampler in SAMPLERS}
    filled = folder / "filled"
    filled.mkdir()
    growing, done = opened(filled, "grid", max(sizes)), 0
    for size in sizes:
        for number in range(done + 1, size + 1):
            trial = trial_of(number, random.Random(number), plan)
            growing.tell(growing.take(trial.values), trial, goals())
        done = size
        for sampler in SAMPLERS:
            copy = shutil.copytree(filled, folder / f"{sampler}-{size}")
            found[sampler][str(size)] = ask_and_tell(opened(copy, sampler, max(sizes)), sampler, size, plan)
    return found


def running_costs(folder: Path, plan: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Seconds to propose and to tell, by sampler and by the number of trials that are running."""
    found: dict[str, dict[str, float]] = {}
    for sampler in ("grid", "tpe"):
        place = folder / f"running-{sampler}"
        place.mkdir()
        study, by_number = opened(place, sampler, 1000), {}
        for number in range(1, 21):
            trial = trial_of(number, random.Random(number), plan)
            study.tell(study.take(trial.values), trial, goals())
        running = 0
        for wanted in RUNNING:
            for number in range(running, wanted):
                study.take(trial_of(number, random.Random(-1 - number), plan).values)
            running = wanted
            costs = ask_and_tell(study, sampler, 1000 + running, plan)
            by_number[str(wanted)] = costs["ask"] + costs["tell"]
        found[sampler] = by_number
    return found


def opened(folder: Path, sampler: Any, trials: int) -> Study:
    study = Study(folder, PARAMETERS, SearchSettings(sampler=sampler, trials=trials), several=True)
    study.begin({}, goals())
    return study


def ask_and_tell(study: Study, sampler: str, done: int, plan: Mapping[str, Any]) -> dict[str, float]:
    """Medians of some trials; the first one, which reads the whole study, does not count."""
    objectives, asks, tells = goals(), [], []
    for number in range(done + 1, done + 2 + REPEATS):
        trial = trial_of(number, random.Random(number), plan)
        started = time.perf_counter()
        proposal = study.take(trial.values) if sampler == "grid" else study.propose(number)
        asked = time.perf_counter()
        study.tell(proposal, trial, objectives)
        asks.append(asked - started)
        tells.append(time.perf_counter() - asked)
    return {"ask": statistics.median(asks[1:]), "tell": statistics.median(tells[1:])}


def ray_costs(plan: Mapping[str, Any], tasks: int = 1000) -> dict[str, float]:
    """Seconds of the driver for giving a task and taking its result, while a thousand wait."""
    config = RayConfig(workers=tasks)
    with RayExecutor(config, print) as executor:
        task = {"plan": {**plan, "threads": 1}}
        executor.submit(0, "json:dumps", task)
        executor.ended()
        started = time.perf_counter()
        for number in range(tasks):
            executor.submit(number, "builtins:dict", task)
        given = time.perf_counter() - started
        ended = taken(lambda: [executor.ended() for _ in range(tasks)])
    return {"submit": given / tasks, "ended": ended / tasks}


def storage_rate(folder: Path, megabytes: int = 400) -> float:
    """MB/s with which a model goes through a storage that is a folder of this machine."""
    (folder / "model").mkdir()
    (folder / "model" / "weights").write_bytes(random.Random(0).randbytes(10**6) * megabytes)
    storage = Storage((folder / "storage").as_uri())
    return megabytes / taken(lambda: storage.put_model(folder / "model", "a"))


# What is simulated


def study_cost(costs: Mapping[str, Any], sampler: str, trials: int, running: int) -> float:
    """Seconds to propose and to tell, with so many trials in the study, and so many that run."""
    ended = {int(size): float(each["ask"] + each["tell"]) for size, each in costs["study"][sampler].items()}
    beside = {int(number): float(each) for number, each in costs["running"][sampler].items()}
    return on_line(ended, trials) + on_line(beside, running) - beside[0]


def on_line(points: Mapping[int, float], at: int) -> float:
    """The value between two points; beyond the last, on the line from the first point to the last."""
    pairs = list(points.items())
    if at <= pairs[0][0]:
        return pairs[0][1]
    for (left, low), (right, high) in itertools.pairwise(pairs):
        if at <= right:
            return low + (high - low) * (at - left) / (right - left)
    (left, low), (right, high) = pairs[0], pairs[-1]
    return high + (high - low) * (at - right) / (right - left)


def simulate(costs: Mapping[str, Any], sampler: str, workers: int, seconds: float) -> dict[str, Any]:
    """A search whose driver does one thing after the other: takes a result, tells it, proposes, plans, gives.

    The first trial runs alone. A trial takes `seconds`, up to a fifth more or less.
    """
    chance = random.Random(workers)
    total, fixed = PER_WORKER * workers, costs["plan"] + costs["submit"] + costs["ended"]
    ends: list[float] = []
    now = worked = seconds
    busy = 0.0
    begun, done = 1, 1

    def begin() -> None:
        nonlocal now, busy, begun, worked
        cost = fixed + study_cost(costs, sampler, done, len(ends))
        now, busy, begun = now + cost, busy + cost, begun + 1
        length = seconds * chance.uniform(0.8, 1.2)
        worked += length
        heapq.heappush(ends, now + length)

    while begun < min(total, workers + 1):
        begin()
    while ends:
        now = max(now, heapq.heappop(ends))
        done += 1
        if begun < total:
            begin()
    used = worked / (now * workers)
    return {
        "sampler": sampler, "seconds": seconds, "workers": workers, "trials": total, "hours": now / 3600,
        "trials_per_hour": total / now * 3600, "workers_busy": used, "driver_busy": busy / now,
    }  # fmt: skip


def start(workers: int, gigabytes: float, bandwidth: float) -> dict[str, float]:
    """Seconds until each machine has its copy of a model, where all begin at once and share the storage."""
    return {"workers": workers, "seconds": workers * gigabytes / bandwidth}


def show(
    costs: Mapping[str, Any],
    simulated: Sequence[Mapping[str, Any]],
    starts: Sequence[Mapping[str, float]],
    gigabytes: float,
    bandwidth: float,
) -> None:
    print("measured: milliseconds to propose (and to tell), by trials in the study")
    sizes = list(costs["study"][SAMPLERS[0]])
    rows = [
        [sampler, *(f"{by_size[size]['ask'] * 1e3:.0f} ({by_size[size]['tell'] * 1e3:.0f})" for size in sizes)]
        for sampler, by_size in costs["study"].items()
    ]
    table(rows, ["sampler", *sizes])
    print("\nmeasured: milliseconds to propose and to tell, by trials that run")
    rows = [
        [sampler, *(f"{each * 1e3:.0f}" for each in by_number.values())]
        for sampler, by_number in costs["running"].items()
    ]
    table(rows, ["sampler", *map(str, RUNNING)])
    print("\nmeasured: other costs of the driver, in milliseconds")
    rows = [[name, f"{costs[name] * 1e3:.2f}"] for name in ("plan", "submit", "ended")]
    rows += [[f"frontier of {size}", f"{value * 1e3:.0f}"] for size, value in costs["frontier"].items()]
    table(rows, ["step", "ms"])
    print(f"\nmeasured: {costs['storage_mb_per_s']:.0f} MB/s into a storage that is a folder here")
    print(f"\nsimulated with these costs: {PER_WORKER} trials for each worker")
    rows = [
        [
            each["sampler"], f"{each['seconds']:.0f}", each["workers"], f"{each['hours']:.2f}",
            f"{each['trials_per_hour']:.0f}", f"{each['workers_busy']:.0%}", f"{each['driver_busy']:.0%}",
        ]
        for each in simulated
    ]  # fmt: skip
    table(rows, ["sampler", "s a trial", "workers", "hours", "trials an hour", "workers busy", "driver busy"])
    print(f"\nassumed: a model of {gigabytes:g} GB, a storage of {bandwidth:g} GB/s for all; until each has its copy")
    table([[int(each["workers"]), f"{each['seconds']:.0f}"] for each in starts], ["workers", "seconds"])


if __name__ == "__main__":
    main()
