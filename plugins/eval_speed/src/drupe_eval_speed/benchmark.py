"""`drupe benchmark`: how fast packages and models of other tools are, side by side in one run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from drupe.api import UsageError

MODEL, CASES, RUNNING = "Models", "What is measured", "Running and printing"
FLAGS = {
    "prompt_lengths": "--prompt-lengths",
    "batch_sizes": "--batch-sizes",
    "sizes": "--size",
    "new_tokens": "--new-tokens",
    "repeats": "--repeats",
    "threads": "--threads",
}
"""How a user sets each key of SpeedConfig."""


def benchmark(
    packages: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Packages that `drupe optimize` made, ONNX graphs, checkpoints, GGUF files, models of OpenVINO. The "
            "first is the base of the ratios.",
            rich_help_panel=MODEL,
        ),
    ],
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<name>",
            help="Measure packages that have this adapter also while it is active; an .onnx_adapter file will do; may "
            "be given several times.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    prompt_lengths: Annotated[
        str | None,
        typer.Option(
            metavar="<ints>",
            help="Tokens of a prompt, or of a row of a model that reads tokens: 128,512.  [default: 128]",
            show_default=False,
            rich_help_panel=CASES,
        ),
    ] = None,
    batch_sizes: Annotated[
        str | None,
        typer.Option(
            metavar="<ints>",
            help="Rows that are run at once: 1,4.  [default: 1]",
            show_default=False,
            rich_help_panel=CASES,
        ),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<axis=int>",
            help="The size of another axis of a graph, by its name; may be given several times.",
            rich_help_panel=CASES,
        ),
    ] = None,
    new_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="<int>", help="Tokens of an answer.  [default: 64]", show_default=False, rich_help_panel=CASES
        ),
    ] = None,
    repeats: Annotated[
        str | None,
        typer.Option(
            metavar="<int>",
            help="Runs of each case, and loads; at least 6 tell a difference from noise.  [default: 7]",
            show_default=False,
            rich_help_panel=CASES,
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            metavar="<int>",
            help="Threads of the processor.  [default: what each package's session has; models of other tools get the "
            "first package's number]",
            show_default=False,
            rich_help_panel=RUNNING,
        ),
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(
            metavar="<name>", help="Run on this provider, not the one each was made for.", rich_help_panel=RUNNING
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON, with the values of all runs.")
    ] = False,
) -> None:
    """Measure how fast packages are, side by side, and beside models of other tools.

    Of models that write text: time to the first token and between tokens, prefill and decode rates. Of other models:
    time of a run, runs and rows a second. Of all: load time, peak memory, size, and energy where it is counted.

    Checkpoints run in transformers, GGUF files in llama.cpp (llama-cpp-python), models of OpenVINO in openvino, where
    these are installed.

    Each model runs in a process of its own. The models take turns, and what is shown is the median of all runs with
    the interval in which it lies with 95 % confidence. All models are in memory at the same time.
    """
    from drupe.api import configure, registry
    from drupe_console import progress
    from drupe_eval_speed.measuring import measure, refuse_unknown_adapters, subject_of, with_adapters
    from drupe_eval_speed.report import print_document, print_tables
    from drupe_eval_speed.settings import SpeedConfig
    from drupe_timing import disturbance

    typed = {
        "prompt_lengths": prompt_lengths,
        "batch_sizes": batch_sizes,
        "sizes": _sizes(size) if size else None,
        "new_tokens": new_tokens,
        "repeats": repeats,
        "threads": threads,
    }
    given = {key: value for key, value in typed.items() if value is not None}
    config = configure("command benchmark", SpeedConfig, given, FLAGS)
    found = registry()
    alone = [subject_of(each, provider, found) for each in packages]
    subjects = [each for package in alone for each in (package, *with_adapters(package, adapter or ()))]
    refuse_unknown_adapters(subjects, adapter or ())
    busy = disturbance()
    notes = [f"{busy}: measure again when the machine is quiet"] if busy else []
    measured = measure(subjects, config, progress(lines=False), loads=config.runs)
    (print_document if as_json else print_tables)(measured, config, notes)


def _sizes(texts: Sequence[str]) -> dict[str, Any]:
    """What `--size AXIS=NUMBER` says, given several times."""
    sizes: dict[str, Any] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        if not equals or not name.strip():
            raise UsageError(f"--size takes AXIS=NUMBER, not '{text}'", cure="--size height=224")
        sizes[name.strip()] = number.strip()
    return sizes
