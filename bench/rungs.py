"""The packages that `bench quality` compares: one line for each way to make one, with Drupe or the model builder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from convert import with_builder, with_drupe
from measure import Failed

NOT_OFFERED = (2, 6)
"""The exit statuses of `drupe` for an unknown option, a wrong value of an option, and a missing library."""


@dataclass(frozen=True)
class Rung:
    """A way to make an int4 package.

    options: of `drupe optimize` for our packages, `--extra_options` for the builder's.
    """

    name: str
    tool: Literal["drupe", "builder"]
    options: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The rung's name with the tool's name: both tools may have a rung of the same name."""
        return f"{self.tool} {self.name}"

    def make(self, checkpoint: Path, output: Path) -> None:
        """Write the package. Raises NotOffered, and Failed where the tool does not succeed."""
        if self.tool == "builder":
            with_builder(checkpoint, output, self.options)
            return
        try:
            with_drupe(checkpoint, output, self.options)
        except Failed as failed:
            if failed.status in NOT_OFFERED:
                raise NotOffered(_complaint(str(failed))) from failed
            raise


class NotOffered(Exception):
    """The installed Drupe lacks the options or libraries of a rung. The message is Drupe's own."""


def _complaint(said: str) -> str:
    """The line of a program's output that says what is wrong."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    wrong = (line for line in lines if line.lower().startswith("error"))
    return next(wrong, lines[-1])


def _ours(name: str, options: str) -> Rung:
    return Rung(name, "drupe", tuple(options.split()))


def _theirs(name: str, options: str = "") -> Rung:
    return Rung(name, "builder", tuple(options.split()))


BASE = _theirs("default")
"""The rung that all others are compared with."""

RUNGS: Sequence[Rung] = (
    _ours("fast", "--quality fast"),
    _ours("balanced", "--quality balanced"),
    _ours("best", "--quality best"),
    _ours("balanced, 4.4 bits a weight", "--quality balanced --bits-per-weight 4.4"),
    _ours("balanced, 4.8 bits a weight", "--quality balanced --bits-per-weight 4.8"),
    _ours("balanced, 6 bits a weight", "--quality balanced --bits-per-weight 6"),
    _ours("best, 4.4 bits a weight", "--quality best --bits-per-weight 4.4"),
    _ours("best, 4.8 bits a weight", "--quality best --bits-per-weight 4.8"),
    _ours("best, 6 bits a weight", "--quality best --bits-per-weight 6"),
    _ours("balanced, hqq", "--quality balanced --method hqq"),
    _ours("balanced, channels weighed", "--quality balanced --prepare weigh"),
    _ours("balanced, channels scaled (AWQ)", "--quality balanced --prepare scale"),
    _ours("balanced, smoothed (SmoothQuant)", "--quality balanced --prepare smooth"),
    _ours("balanced, rotated (QuaRot)", "--quality balanced --prepare rotate"),
    _ours("best, rotated (QuaRot)", "--quality best --prepare rotate"),
    _ours("autoround", "--quality autoround --calibration-sequences 64 --calibration-length 256"),
    _ours("4 bits, block 32", "--quality balanced --head-bits 4 --block-size 32"),
    _ours("4 bits, block 64, symmetric", "--quality balanced --head-bits 4 --block-size 64 --symmetric"),
    _ours("4 bits, block 128", "--quality balanced --head-bits 4 --block-size 128"),
    _ours("4 bits, block 256", "--quality balanced --head-bits 4 --block-size 256"),
    _ours("best, 4 bits, block 256", "--quality best --head-bits 4 --block-size 256"),
    BASE,
    _theirs("rtn", "algo_config=rtn"),
    _theirs("k_quant", "algo_config=k_quant"),
    _theirs("k_quant_last", "algo_config=k_quant_last"),
    _theirs("k_quant_mixed", "algo_config=k_quant_mixed"),
    _theirs("rtn_last", "algo_config=rtn_last"),
    _theirs("asymmetric", "is_symmetric=false"),
    _theirs("k_quant, asymmetric", "algo_config=k_quant is_symmetric=false"),
    _theirs("block 64", "block_size=64"),
    _theirs("block 128", "block_size=128"),
)


def package_bytes(package: Path) -> int:
    """Bytes of the graph and its weights, without tokenizer and configuration."""
    return sum(path.stat().st_size for path in package.glob("model.onnx*"))


def remove(package: Path) -> None:
    """Delete a package, if it is there."""
    shutil.rmtree(package, ignore_errors=True)
