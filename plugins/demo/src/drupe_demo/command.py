"""`drupe demo`: optimize drupe's built-in model, and show how much smaller and faster it becomes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import drupe
from drupe.api import Record, asdict
from drupe_demo import HELDOUT, MODEL

if TYPE_CHECKING:
    from drupe.api import Metric

FINETUNE = "finetune"
PROMPT = "def parse("
SAMPLE_TOKENS, SAMPLE_LINES = 72, 8
TEMPERATURE, TOP_K, SEED = 0.5, 20, 6
"""The samples' temperature: a model this small repeats itself if the likeliest token is always taken."""
TOKENS, WINDOW = 2048, 512
"""How many tokens of the held-out text are predicted, and how many in one context."""
PROMPT_TOKENS, RUNS = 256, 5
"""Of the measurement of speed: how long the prompt is, and of how many runs the median is shown."""
ABOUT = "a Qwen3 decoder of 5.6 M parameters, trained on Python's standard library"


class Side(Record):
    """The measurements of one package. Rates are in tokens a second, the divergence is in nats a token."""

    precision: str
    bytes: int
    conversion_seconds: float
    sample: str
    prefill_rate: float
    decode_rate: float
    kl_divergence: float
    top1_agreement: float
    perplexity: float


def demo(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[finetune]", help="finetune: train the model on 200 rows first.", show_default=False),
    ] = None,
    precision: Annotated[str, typer.Option(help="int4, int8, fp16, bf16 or fp32.")] = "int4",
    quality: Annotated[
        str | None,
        typer.Option(
            help="fast (round to nearest), balanced (error search) or best (calibrates).", show_default="balanced"
        ),
    ] = None,
    output_path: Annotated[
        Path | None, typer.Option("-o", "--output-path", "--output", help="Keep the package here.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output folder if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Optimize drupe's built-in model, and compare size, speed and quality before and after."""
    started = time.perf_counter()
    _refuse_without_runtime()
    if what is not None:
        _refuse_other(what, quality)
        from drupe_demo.finetuning import finetune_demo

        with _status() as say:
            finetune_demo(precision, output_path, force=force, as_json=as_json, say=say)
        return
    from drupe_files import scratch

    with scratch() as folder, _status() as say:
        before, after = folder / "before", output_path or folder / "after"
        say("packaging the source at float32")
        source = drupe.optimize(MODEL, before, precision="fp32", verify=False)
        say(f"optimizing it to {precision}")
        made = drupe.optimize(MODEL, after, precision=precision, quality=quality, verify=False, force=force)
        say(f"comparing both on {TOKENS} tokens of held-out text")
        close = _measured(drupe.evaluate(after, before, evaluation_data=HELDOUT, tokens=TOKENS, length=WINDOW))
        say("timing the source, and generating a sample")
        same = {"kl_divergence": 0.0, "top1_agreement": 1.0, "perplexity": close.pop("reference_perplexity")}
        first = Side("fp32", source.bytes, source.conversion_seconds, _sample(before), **_speed(before), **same)
        say("timing the package, and generating a sample")
        second = Side(precision, made.bytes, made.conversion_seconds, _sample(after), **_speed(after), **close)
    if as_json:
        print(json.dumps({"before": asdict(first), "after": asdict(second)}, indent=1))
    else:
        _show(first, second, time.perf_counter() - started, output_path)


def _refuse_other(what: str, quality: str | None) -> None:
    from drupe.api import UsageError

    if what != FINETUNE:
        raise UsageError(f"there is no demo '{what}'", cure=f"drupe demo, or drupe demo {FINETUNE}")
    if quality is not None:
        raise UsageError(f"--quality has no effect with drupe demo {FINETUNE}", cure="leave --quality out")


def _refuse_without_runtime() -> None:
    """Raise RuntimeMissing before the work if the package could not be run."""
    from drupe.api import RuntimeMissing, default_provider, registry

    packages = default_provider(registry()).packages
    if not any(registry().runtimes.make(package.runtime).version() for package in packages):
        missing = " and ".join(f"{package.runtime} is not installed" for package in packages)
        raise RuntimeMissing(f"the demo runs the package that it makes, but {missing}", cure=packages[0].install)


def _measured(metrics: tuple[Metric, ...]) -> dict[str, float]:
    return {metric.name: metric.value for metric in metrics}


def _speed(package: Path) -> dict[str, float]:
    timed = drupe.evaluate(package, evaluator="throughput", prompt_lengths=PROMPT_TOKENS, repeats=RUNS)
    return _measured(timed)


def _sample(package: Path) -> str:
    """The text with which the package continues the prompt."""
    from drupe_decoding import Generation

    generation = Generation(max_new_tokens=SAMPLE_TOKENS, temperature=TEMPERATURE, top_k=TOP_K, seed=SEED)
    with drupe.open(package) as session:
        text = PROMPT + session.generate(PROMPT, generation)
    return "\n".join(text.splitlines()[:SAMPLE_LINES])


@contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """Shows the current step on a terminal, in a line that disappears afterwards."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status("") as status:
        yield lambda text: status.update(f"{text} ...")


def _show(before: Side, after: Side, seconds: float, kept: Path | None) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"{ABOUT[0].upper()}{ABOUT[1:]}.\n")
    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    grid.add_column("")
    grid.add_column(f"before\n{before.precision}", justify="right")
    grid.add_column(f"after\n{after.precision}", justify="right")
    grid.add_column("")
    for row in _rows(before, after):
        grid.add_row(*row)
    console.print(grid)
    for title, side in (("before", before), ("after", after)):
        console.print(f"\n[bold]{title}[/bold], at temperature {TEMPERATURE}:")
        for line in side.sample.splitlines():
            console.print(f"  {escape(line)}", no_wrap=True, overflow="ellipsis")
    console.print(f"\nThe conversion took {after.conversion_seconds:.1f} s, the whole demo {seconds:.0f} s.")
    if kept:
        console.print(f"drupe chat {escape(str(kept))}", soft_wrap=True)


def _rows(before: Side, after: Side) -> Iterator[tuple[str, str, str, str]]:
    """The rows of the table: name, both numbers, and their comparison."""
    yield "size", _size(before.bytes), _size(after.bytes), f"{before.bytes / after.bytes:.1f} times smaller"
    for name, field in (("prefill", "prefill_rate"), ("decode", "decode_rate")):
        old, new = getattr(before, field), getattr(after, field)
        yield name, f"{old:,.0f} tok/s", f"{new:,.0f} tok/s", f"{new / old:.1f} times the speed"
    yield "KL divergence", "0", f"{after.kl_divergence:.4f}", "nats per token from the source"
    yield "top-1 agreement", "100 %", f"{after.top1_agreement:.1%}".replace("%", " %"), "with the same likeliest token"
    change = after.perplexity / before.perplexity - 1
    yield "perplexity", f"{before.perplexity:.2f}", f"{after.perplexity:.2f}", f"{change:+.1%}".replace("%", " %")


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
