"""Drupe turns a trained model into the smallest, fastest one its target can run while a stated quality holds.

import drupe

drupe.optimize("path/to/checkpoint", output="package", precision="int4")
print(drupe.open("package").generate("def parse("))
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, whose import would come before `drupe.__main__` can answer Ctrl-C
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from drupe.context import Progress
    from drupe.engine import Outcome
    from drupe.evaluation import Metric
    from drupe.runtime import Session

__all__ = ["evaluate", "open", "optimize"]


def optimize(
    reference: str | Path,
    output: str | Path,
    *,
    provider: str = "cpu",
    precision: str = "int4",
    threads: int = 0,
    verify: bool = True,
    force: bool = False,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Outcome:
    """Make a package of a model; see `drupe optimize --help` for what each argument means.

    options: settings for the plan's passes (quality, prepare, block_size, symmetric, head_bits, all_logits), and for
    the closing comparison with the source (evaluation_data, tokens, max_kl). `prepare` may be a list.
    Raises drupe.api.DrupeError for anything that the caller can mend; `output` is then untouched.
    """
    from pathlib import Path

    from drupe import engine
    from drupe.plan import Request

    given = {"revision": revision, "token": token, "cache_dir": cache_dir}
    request = Request(
        reference=str(reference),
        output=Path(output),
        provider=provider,
        precision=precision,
        options={name: value for name, value in options.items() if value not in (None, [])},
        model_options={name: value for name, value in given.items() if value is not None},
        threads=threads,
        verify=verify,
        force=force,
    )
    return engine.optimize(request, progress)


def open(package: str | Path, *, provider: str | None = None, max_length: int | None = None) -> Session:
    """Open a package in its runtime, on the provider it was made for unless another is named.

    max_length: room for this many tokens, prompt and answer; None for what the package asks for.
    """
    from drupe import opening

    return opening.open_package(str(package), provider, max_length)


def evaluate(
    package: str | Path,
    against: str | Path | None = None,
    *,
    evaluator: str = "quality",
    provider: str | None = None,
    progress: Progress | None = None,
    **config: Any,
) -> tuple[Metric, ...]:
    """Measure a package: with "quality", the perplexity of a text; against a reference, KL divergence and agreement.

    against: a package; or a checkpoint, which is run at float32, layer by layer.
    config: the evaluator's settings (evaluation_data, tokens, length, seed for "quality").
    """
    from drupe import evaluating
    from drupe.context import Progress

    given = {name: value for name, value in config.items() if value is not None}
    reference = None if against is None else str(against)
    return evaluating.evaluate(str(package), reference, evaluator, given, provider, progress or Progress())
