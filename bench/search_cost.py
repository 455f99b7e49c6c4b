"""What a search costs, as a multiple of one run: the same workflow with one value in each place, carried out alone.

    python3 dev.py bench search_cost                               # the qwen2.5-0.5b shape, 30 trials
    python3 dev.py bench search_cost --checkpoint DIR --trials 12  # another checkpoint
    python3 dev.py bench search_cost --demo --measuring full       # the demo model, without any shortcut

One run is what a user does for one package: `drupe run` of a file with the first value of each list, with the closing
check, the comparison with the source, and the search's evaluators under `measure`. CPU time counts (user and system,
all processes), because other programs disturb it less than wall time. Each run begins with the same cache: compiled
inner loops, and nothing of the model.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from checkpoints import cached
from measure import Measurement, busy_machine, drupe, measure, note, ratio, seconds, show

SHAPE = "qwen2.5-0.5b"
SEARCHED: dict[str, list[Any]] = {
    "block_size": [32, 16, 64, 128, 256],
    "symmetric": [True, False],
    "head_bits": [4, 8],
    "threads": [2, 1],
}
EVALUATOR = "latency"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help=f"by default the shape {SHAPE} with random weights")
    parser.add_argument("--demo", action="store_true", help="the model that Drupe brings")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--measuring", choices=("brief", "full"), default="brief")
    parser.add_argument("--runs", type=int, default=2, help="how often the one run is measured, the search in between")
    parser.add_argument("--no-tune", action="store_true", help="leave tune-session out of both")
    parser.add_argument("--keep", type=Path, help="keep the packages and the study in this folder")
    parser.add_argument("--json", type=Path, help="write the numbers to this file as well")
    chosen = parser.parse_args()
    checkpoint = Path(str(files("drupe_demo") / "model")) if chosen.demo else chosen.checkpoint or cached(SHAPE)
    busy = busy_machine()
    with tempfile.TemporaryDirectory() as name:
        folder = chosen.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        runs, search = measured(folder, checkpoint, chosen)
        study = json.loads((folder / "search.study" / "study.json").read_text(encoding="utf-8"))
    report(runs, search, study, busy)
    if chosen.json:
        numbers = {"one_run": [vars(each) for each in runs], "search": vars(search), "chosen": study["chosen"]}
        chosen.json.write_text(json.dumps(numbers, indent=1) + "\n")


def measured(folder: Path, checkpoint: Path, chosen: argparse.Namespace) -> tuple[list[Measurement], Measurement]:
    """The one run, as often as is wanted, and in their middle the search."""
    one = workflow_of(checkpoint, {name: each[0] for name, each in SEARCHED.items()}, chosen.no_tune)
    one["measure"] = [EVALUATOR]
    many = workflow_of(checkpoint, SEARCHED, chosen.no_tune)
    many["search"] = {"trials": chosen.trials, "measuring": chosen.measuring, "evaluators": [EVALUATOR]}
    warm = folder / "warm"
    note("compiling the inner loops, where that was not done yet")
    run({"model": str(files("drupe_demo") / "model")}, folder, "first", warm)
    runs: list[Measurement] = []
    for number in range(max(1, chosen.runs)):
        note("one run")
        runs.append(run(one, folder, "one", copy_of(warm, folder)))
        if number == 0:
            note(f"a search of {chosen.trials} trials")
            search = run(many, folder, "search", copy_of(warm, folder))
    return runs, search


def workflow_of(checkpoint: Path, values: Mapping[str, Any], no_tune: bool) -> dict[str, Any]:
    """A workflow with these options and threads."""
    options = {name: value for name, value in values.items() if name != "threads"}
    options |= {"tune": False} if no_tune else {}
    return {"model": str(checkpoint), "options": options, "threads": values["threads"]}


def copy_of(warm: Path, folder: Path) -> Path:
    """A cache that knows compiled loops only."""
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    return Path(shutil.copytree(warm, cache))


def run(workflow: dict[str, Any], folder: Path, name: str, cache: Path) -> Measurement:
    """Carry out a workflow in a process of its own."""
    file = folder / f"{name}.json"
    file.write_text(json.dumps(workflow, indent=1), encoding="utf-8")
    shutil.rmtree(folder / f"{name}.study", ignore_errors=True)
    command = [drupe(), "run", file, "-o", folder / name, "--force"]
    return measure(command, environment={"DRUPE_CACHE": str(cache)})


def report(runs: Sequence[Measurement], search: Measurement, study: Mapping[str, Any], busy: str) -> None:
    one = Measurement(statistics.median(each.wall_s for each in runs), statistics.median(map(cpu, runs)), None)
    rows = [["one run", seconds(each.cpu_s), seconds(each.wall_s), "", ""] for each in runs]
    ratios = ratio(search.cpu_s, one.cpu_s), ratio(search.wall_s, one.wall_s)
    rows.append(["search", seconds(search.cpu_s), seconds(search.wall_s), *ratios])
    trials = study["trials"]
    full = sum(trial["in_full"] for trial in trials)
    remarks = [
        f"{cpu(search) / len(trials):.1f} s of CPU time for each of {len(trials)} trials, {full} of them in full."
    ]
    show(
        "What a search costs",
        ("", "CPU time", "wall time", "CPU, of one run", "wall, of one run"),
        rows,
        [*remarks, busy],
    )


def cpu(measurement: Measurement) -> float:
    return measurement.cpu_s or 0.0


if __name__ == "__main__":
    main()
