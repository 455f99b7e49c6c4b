"""Parameters that several commands have, and printing a text as it comes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drupe.api import UsageError

if TYPE_CHECKING:
    from drupe_decoding import Generation

MODEL, TARGET = "Model and output", "Target"
SEARCHING = "Searching"
PASSES, CHECKING, RUNNING = "Passes", "Checking", "Running and printing"

ModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="A checkpoint's folder, a hub id, or what else installed plugins know.",
        rich_help_panel=MODEL,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output-path", "--output", metavar="<path>", help="Folder to make.", rich_help_panel=MODEL),
]
Force = Annotated[bool, typer.Option("--force", help="Replace the output folder.", rich_help_panel=MODEL)]
Precision = Annotated[
    str, typer.Option(metavar="<name>", help="int4, int8, fp16, bf16 or fp32.", rich_help_panel=TARGET)
]
ForProvider = Annotated[
    str | None,
    typer.Option(
        "--provider",
        metavar="<name>",
        help="Execution provider: cpu, CUDAExecutionProvider, ...  [default: what this machine has]",
        rich_help_panel=TARGET,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="<kind>", help="Instead of a provider: cpu, gpu or npu.", rich_help_panel=TARGET),
]
Threads = Annotated[
    int,
    typer.Option(
        help="For converting, and for the package on this machine.  [default: all]",
        show_default=False,
        rich_help_panel=RUNNING,
    ),
]
ComparedBy = Annotated[
    str | None,
    typer.Option(
        "--evaluator",
        metavar="<name>",
        help="What compares the package with its source; drupe evaluators lists them.  [default: the task's own]",
        show_default=False,
        rich_help_panel=CHECKING,
    ),
]
RequireCheck = Annotated[
    bool,
    typer.Option(
        "--require-check",
        help="Fail where the package could not be run or compared here, with exit status 9.",
        rich_help_panel=CHECKING,
    ),
]
OnlyPlan = Annotated[
    bool, typer.Option("--plan", help="Only say what would run, and what it takes.", rich_help_panel=RUNNING)
]
JsonResult = Annotated[bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=RUNNING)]
LogLevel = Annotated[
    int,
    typer.Option(metavar="<0|1|2>", min=0, max=2, help="0 minimal, 1 detailed, 2 debug.", rich_help_panel=RUNNING),
]

Package = Annotated[
    str, typer.Argument(metavar="PACKAGE", help="Folder that `drupe optimize` made.", rich_help_panel=MODEL)
]
Provider = Annotated[
    str | None,
    typer.Option(metavar="<name>", help="Run on this provider, not the one it was made for.", rich_help_panel=RUNNING),
]
ActiveAdapter = Annotated[
    str | None,
    typer.Option(
        metavar="<name>", help="The adapter of the package to use; without it, the base model.", rich_help_panel=RUNNING
    ),
]
MOST_TOKENS = 2**31 - 1
MaxNewTokens = Annotated[
    int, typer.Option(metavar="<int>", min=1, max=MOST_TOKENS, help="Stop after this many tokens.")
]
Temperature = Annotated[
    float,
    typer.Option(metavar="<float>", min=0.0, max=100.0, help="0 takes the likeliest token; higher is more random."),
]
TopP = Annotated[
    float, typer.Option(metavar="<float>", min=0.0, max=1.0, help="Sample from the likeliest that sum to this.")
]
TopK = Annotated[
    int, typer.Option(metavar="<int>", min=0, max=MOST_TOKENS, help="Sample from this many likeliest tokens; 0: all.")
]
Seed = Annotated[int, typer.Option(metavar="<int>", min=0, max=2**31 - 1, help="Makes a sampled text repeatable.")]
MaxLength = Annotated[int | None, typer.Option(metavar="<int>", min=2, help="Room for prompt and answer, in tokens.")]


def set_option(form: str, what: str, panel: str) -> Any:
    """The option `--set` of a command. form: how a setting is typed; what: what it sets."""
    return typer.Option("--set", metavar=form, help=f"{what}; may be given several times.", rich_help_panel=panel)


def generation_of(max_new_tokens: int, temperature: float, top_p: float, top_k: int, seed: int) -> Generation:
    """How to generate. Raises UsageError for flags of sampling where nothing is sampled."""
    from drupe_decoding import Generation

    sampling = {"--top-p": top_p != 1, "--top-k": top_k != 0, "--seed": seed != 0}
    given = [name for name, typed in sampling.items() if typed]
    if given and temperature == 0:
        what = f"{given[0]} has no effect at temperature 0, which takes the likeliest token"
        raise UsageError(what, cure="--temperature 0.7")
    return Generation(max_new_tokens, temperature, top_p, top_k, seed)


def print_pieces(pieces: Iterable[str], said: list[str]) -> None:
    """Print a text piece by piece, and keep in `said` what was printed, so that it is there after an interruption.

    The line ends however the text does: what is said of an error begins a new one.
    """
    try:
        for piece in pieces:
            said.append(piece)
            print(piece, end="", flush=True)
    finally:
        print(flush=True)
