"""Measuring packages of real models: the evaluators, the command, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sites import Done, program_here

import drupe
from drupe.api import CheckFailed, Progress, UsageError, registry
from drupe_eval_speed.measuring import measure, subject_of
from drupe_eval_speed.settings import BRIEF_ANSWER, BRIEF_REPEATS, SpeedConfig
from drupe_eval_speed.staying import _STAYING
from drupe_files import sharing
from drupe_timing import PackageProcess

pytest.importorskip("onnxruntime_genai")

SMALL: dict[str, Any] = {"prompt_lengths": 16, "new_tokens": 8, "repeats": 2}
PROGRAM = [sys.executable, "-c", "from drupe_commands.program import main; main()", "benchmark"]
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


def benchmark(*arguments: object) -> Done:
    return program_here("benchmark", *arguments)


def test_latency_throughput_and_footprint_of_a_decoder(package: Path) -> None:
    latency = {each.name: each for each in drupe.evaluate(package, evaluator="latency", **SMALL)}
    assert list(latency) == [
        "time_to_first_token", "inter_token_mean", "inter_token_p50", "inter_token_p90", "inter_token_p99",
    ]  # fmt: skip
    assert {(each.unit, each.better) for each in latency.values()} == {("ms", "lower")}
    assert 0 < latency["inter_token_p50"].value <= latency["inter_token_p90"].value <= latency["inter_token_p99"].value
    low, high = latency["inter_token_p50"].spread or (0, 0)
    assert 0 < low <= latency["inter_token_p50"].value <= high
    rates = {each.name: each.value for each in drupe.evaluate(package, evaluator="throughput", **SMALL)}
    assert set(rates) == {"prefill_rate", "decode_rate"} and min(rates.values()) > 10
    takes = {each.name: each.value for each in drupe.evaluate(package, evaluator="footprint", **SMALL)}
    assert takes["size_on_disk"] == sum(each.stat().st_size for each in package.rglob("*") if each.is_file())
    assert takes["load_time"] > 0
    assert not Path("/proc/self/status").is_file() or 20e6 < takes["peak_memory"] < 2e9


def test_each_case_is_a_metric_of_its_own(package: Path) -> None:
    metrics = drupe.evaluate(package, evaluator="throughput", **{**SMALL, "prompt_lengths": "8,16", "batch_sizes": [2]})
    assert [each.name for each in metrics] == [
        f"{rate}[length={length},batch=2]" for length in (8, 16) for rate in ("prefill_rate", "decode_rate")
    ]


def test_a_batch_reads_and_writes_more_tokens_at_once(package: Path) -> None:
    """The times of a run are made of its rates: more rows give more tokens in each step."""
    config = SpeedConfig(prompt_lengths=(16,), batch_sizes=(1, 8), new_tokens=8, repeats=3)
    found = measure([subject_of(str(package), None, registry())], config, Progress())
    values = {(row.quantity.name, row.case.rows): row.values[0] for row in found.rows if row.case}
    for rows in (1, 8):
        for first, rate in zip(values["time_to_first_token", rows], values["prefill_rate", rows], strict=True):
            assert rate == pytest.approx(rows * 16 / first * 1e3)
        for mean, rate in zip(values["inter_token_mean", rows], values["decode_rate", rows], strict=True):
            assert rate == pytest.approx(rows / mean * 1e3)


def test_a_brief_measurement_has_fewer_runs_and_shorter_answers_unless_numbers_are_named(package: Path) -> None:
    subject = subject_of(str(package), None, registry())
    brief = measure([subject], SpeedConfig(brief=True, prompt_lengths=(16,)), Progress())
    assert brief.new_tokens == BRIEF_ANSWER
    assert {len(row.values[0]) for row in brief.rows if row.case} == {BRIEF_REPEATS}
    named = measure([subject], SpeedConfig(**{**SMALL, "repeats": 3}, brief=True), Progress())
    assert named.new_tokens == 8 and {len(row.values[0]) for row in named.rows if row.case} == {3}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The orders that processes are given."""
    found: list[str] = []
    ask = PackageProcess.ask

    def noted(self: PackageProcess, order: str, **values: Any) -> dict[str, Any]:
        found.append(order)
        return ask(self, order, **values)

    monkeypatch.setattr(PackageProcess, "ask", noted)
    return found


def test_trials_of_a_search_share_what_was_measured_briefly_of_an_equal_graph(
    package: Path, asked: list[str], tmp_path: Path
) -> None:
    other = Path(shutil.copytree(package, tmp_path / "other"))
    record = json.loads((other / "drupe.json").read_text())
    record["files"]["model.onnx.data"]["sha256"] = "of other weights"
    (other / "drupe.json").write_text(json.dumps(record))
    with sharing(tmp_path):
        first = drupe.evaluate(package, evaluator="latency", **SMALL, brief=True)
        rates = drupe.evaluate(package, evaluator="throughput", **SMALL, brief=True)
        equal = drupe.evaluate(other, evaluator="latency", **SMALL, brief=True)
        assert asked.count("run") == 2
        assert [each.value for each in equal] == [each.value for each in first]
        assert all("taken over" in each.detail for each in (*equal, *rates)) and not first[0].detail
        drupe.evaluate(package, evaluator="latency", **SMALL)
        drupe.evaluate(other, evaluator="latency", **SMALL)  # in full, each is measured itself
        assert asked.count("run") == 6
    drupe.evaluate(package, evaluator="latency", **SMALL, brief=True)
    assert asked.count("run") == 8


def test_the_brief_measurements_of_a_search_go_on_in_one_process(
    packages: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    begin = PackageProcess.__enter__

    def noted(self: PackageProcess) -> PackageProcess:
        begun.append(Path(self._package).name)
        return begin(self)

    monkeypatch.setattr(PackageProcess, "__enter__", noted)
    with sharing(tmp_path):
        for each in ("int4", "fp32"):
            assert drupe.evaluate(packages(each), evaluator="latency", **SMALL, brief=True)
        assert begun == ["int4"] and len(_STAYING) == 1
        with pytest.raises(UsageError, match="has room for"):
            drupe.evaluate(packages("int4"), evaluator="latency", prompt_lengths=9999, new_tokens=2, brief=True)
        assert not _STAYING
        drupe.evaluate(packages("fp32"), evaluator="latency", **{**SMALL, "new_tokens": 4}, brief=True)
        drupe.evaluate(packages("fp32"), evaluator="latency", **SMALL)
    assert begun == ["int4", "fp32", "fp32"] and not _STAYING


def test_packages_take_turns_in_one_run(packages: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    ask = PackageProcess.ask

    def noted(self: PackageProcess, order: str, **values: Any) -> dict[str, Any]:
        asked.append((order, Path(self._package).name))
        return ask(self, order, **values)

    monkeypatch.setattr(PackageProcess, "ask", noted)
    subjects = [subject_of(str(packages(each)), None, registry()) for each in ("int4", "fp32")]
    found = measure(subjects, SpeedConfig(**{**SMALL, "repeats": 3}), Progress(), loads=1)
    runs = [name for order, name in asked if order == "run"]
    assert runs == ["int4", "fp32", "fp32", "int4", "int4", "fp32"]
    assert [name for order, name in asked if order == "open"] == ["int4", "fp32", "fp32", "int4"]
    assert all(len(values) == (3 if row.case else 1) for row in found.rows for values in row.values)


def test_what_is_left_open_fits_into_the_room_of_the_package(package: Path, tmp_path: Path) -> None:
    small = Path(shutil.copytree(package, tmp_path / "small"))
    config = json.loads((small / "genai_config.json").read_text())
    config["model"]["context_length"] = config["search"]["max_length"] = 40
    (small / "genai_config.json").write_text(json.dumps(config))
    subjects = [subject_of(str(each), None, registry()) for each in (package, small)]
    found = measure(subjects, SpeedConfig(repeats=1), Progress())
    assert ([case.by_name for case in found.cases], found.new_tokens) == ([{"length": 20, "batch": 1}], 20)
    found = measure(subjects, SpeedConfig(repeats=1, prompt_lengths=(33,)), Progress())
    assert found.new_tokens == 7
    found = measure(subjects[:1], SpeedConfig(repeats=1), Progress())
    assert (found.cases[0].tokens, found.new_tokens) == (128, 64)


def test_the_number_of_threads_is_the_packages_own_unless_one_is_given(package: Path) -> None:
    own = json.loads((package / "genai_config.json").read_text())["model"]["decoder"]["session_options"]
    for threads, expected in ((0, own.get("intra_op_num_threads")), (1, 1), (3, 3)):
        subject = subject_of(str(package), None, registry())
        found = measure([subject], SpeedConfig(**SMALL, threads=threads), Progress())
        assert found.subjects[0].threads == expected


def test_an_embedding_model_is_timed_over_shapes(embedder: Path) -> None:
    names = [each.name for each in drupe.evaluate(embedder, evaluator="throughput", repeats=1, batch_sizes="1,2")]
    assert names == [f"{rate}[length=128,batch={rows}]" for rows in (1, 2) for rate in ("row_rate", "token_rate")]
    with pytest.raises(UsageError, match="a text of 257 tokens is longer than the model's context of 256"):
        drupe.evaluate(embedder, evaluator="latency", repeats=1, prompt_lengths=257)


def test_a_graph_is_timed_on_the_sizes_of_its_own_axes(graph: Path) -> None:
    done = benchmark(graph, "--repeats", 1, "--batch-sizes", 3, "--size", "height=32", "--size", "width=48", "--json")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    cases = [each["case"] for each in results if each["metric"] == "row_rate"]
    assert cases == [{"batch": 3, "height": 32, "width": 48}]
    sizes = [each["packages"][0]["median"] for each in results if each["metric"] == "size_on_disk"]
    assert sizes == [graph.stat().st_size]


def test_the_table_compares_packages_with_the_first(packages: Callable[[str], Path]) -> None:
    small = ("--prompt-lengths", "8,16", "--new-tokens", 4, "--repeats", 6, "--threads", 1)
    done = benchmark(packages("int4"), packages("fp32"), *small)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["int4", "fp32", "fp32", "/", "int4"]
    assert [line for line in lines if line.startswith("prompt")] == [
        f"prompt {length}, batch 1, 4 new tokens" for length in (8, 16)
    ]
    (size,) = (line.split() for line in lines if line.startswith("size on disk"))
    assert float(size[-1]) > 2
    assert sum(line.startswith("decode rate (tokens/s)") for line in lines) == 2
    assert any("of 6 runs in turn" in line and "95% confidence" in line for line in lines)
    assert any(line.startswith("note: ") and "energy" in line for line in lines) or "energy (J)" in done.stdout


def test_a_package_beside_itself_has_two_names_and_no_clear_difference_in_size(package: Path) -> None:
    done = benchmark(package, package, "--prompt-lengths", 8, "--new-tokens", 4, "--repeats", 2, "--json")
    told = json.loads(done.stdout)
    assert [each["package"] for each in told["packages"]] == [str(package)] * 2
    (decode,) = (each for each in told["results"] if each["metric"] == "decode_rate")
    assert decode["ratios_to_first"][0]["verdict"] == "too few repeats to tell"
    assert len(decode["packages"][0]["runs"]) == 2 and decode["unit"] == "tokens/s" and decode["better"] == "higher"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("nowhere",), 3, "there is no package 'nowhere'"),
        (("PACKAGE", "nowhere"), 3, "there is no package 'nowhere'"),
        (("PACKAGE", "--prompt-lengths", "128,abc"), 2, "'abc'"),
        (("PACKAGE", "--prompt-lengths", "0"), 2, "greater than or equal to 1"),
        (("PACKAGE", "--batch-sizes", "1,"), 2, "in: --batch-sizes"),
        (("PACKAGE", "--new-tokens", "1"), 2, "in: --new-tokens"),
        (("PACKAGE", "--repeats", "0"), 2, "in: --repeats"),
        (("PACKAGE", "--threads", "many"), 2, "in: --threads"),
        (("PACKAGE", "--size", "height"), 2, "--size takes AXIS=NUMBER, not 'height'"),
        (("PACKAGE", "--size", "height=3"), 2, "no axis that varies for the size 'height'"),
        (("PACKAGE", "--prompt-lengths", "8,300"), 2, "take 302, but the package has room for 256"),
        (("PACKAGE", "--prompt-lengths", "8,300", "--new-tokens", "9"), 2, "try: prompts of at most 247 tokens"),
        (("PACKAGE", "--new-tokens", "1000"), 2, "try: fewer new tokens"),
        (("PACKAGE", "--provider", "cuda"), 6, "cuda"),
        (("PACKAGE", "--provider", "cudda"), 2, "unknown provider 'cudda'"),
        (("PACKAGE", "EMBEDDER"), 2, "are of different tasks (text-generation and feature-extraction)"),
        (("GRAPH", "--prompt-lengths", "8"), 2, "it has batch, height, width"),
        (("GRAPH", "--size", "hieght=8"), 2, "no axis that varies for the size 'hieght'"),
    ],
)
def test_what_cannot_be_measured_is_said_once(
    package: Path, embedder: Path, graph: Path, arguments: tuple[str, ...], status: int, words: str
) -> None:
    places = {"PACKAGE": package, "EMBEDDER": embedder, "GRAPH": graph}
    done = benchmark(*(places.get(each, each) for each in arguments))
    assert done.returncode == status and words in done.stderr, done.stderr
    assert not done.stdout and done.stderr.count("error:") == 1 and "Traceback" not in done.stderr


def test_evaluators_of_one_package_take_no_reference(package: Path) -> None:
    done = program_here("evaluate", package, "--evaluator", "latency", "--against", package)
    assert done.returncode == 2 and "--against has no effect with the evaluator 'latency'" in done.stderr
    with pytest.raises(UsageError, match="'latency' measures one model"):
        drupe.optimize(package, package.parent / "again", evaluator="latency")


def children(of: int) -> list[int]:
    """The processes that a process has started."""
    found = subprocess.run(["pgrep", "-P", str(of)], capture_output=True, text=True, check=False).stdout
    return [int(each) for each in found.split()]


@pytest.fixture
def long_run(packages: Callable[[str], Path]) -> Any:
    """A benchmark of two packages that would take hours, with both processes started."""
    arguments = [str(packages("int4")), str(packages("fp32")), "--repeats", "1000", "--new-tokens", "100"]
    run = subprocess.Popen(
        [*PROGRAM, *arguments, "--batch-sizes", "8"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 300
    while len(children(run.pid)) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    started = children(run.pid)
    assert len(started) == 2
    time.sleep(1)
    yield run, started
    run.kill()
    run.communicate()


def gone(process: int) -> bool:
    until = time.monotonic() + 300
    while time.monotonic() < until:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{process}/stat").is_file() and Path(f"/proc/{process}/stat").read_text().split()[2] == "Z":
            return True
        time.sleep(0.05)
    return False


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_benchmark_ends_its_processes_and_says_so_once(long_run: Any, number: signal.Signals) -> None:
    run, started = long_run
    run.send_signal(number)
    out, err = run.communicate(timeout=300)
    assert (run.returncode, out, err) == (130, "", "error: stopped\n")
    assert all(map(gone, started))


@posix
def test_the_processes_do_not_outlive_a_killed_benchmark(long_run: Any) -> None:
    run, started = long_run
    run.kill()
    assert all(map(gone, started))


@posix
def test_a_process_that_the_system_kills_is_one_error(long_run: Any) -> None:
    run, started = long_run
    os.kill(started[1], signal.SIGKILL)
    out, err = run.communicate(timeout=300)
    assert run.returncode == CheckFailed.exit_status and not out
    assert err.count("error:") == 1 and "probably because memory ran out" in err and "fp32" in err
    assert all(map(gone, started))
