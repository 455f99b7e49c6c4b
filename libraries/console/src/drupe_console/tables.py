"""Tables and sizes for a person."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterable, Sequence

UNFOLDED = 1000
"""Width of an output that is not a terminal, in columns."""


def table(rows: Iterable[Sequence[object]], head: Sequence[str] = ()) -> None:
    """Print rows in aligned columns, folded at words on a terminal and not at all elsewhere."""
    print("\n".join(table_lines(rows, head)))


def table_lines(rows: Iterable[Sequence[object]], head: Sequence[str] = ()) -> list[str]:
    """The lines of a table, as `table` prints them."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[str(cell) for cell in row] for row in rows]
    grid = Table(box=None, show_header=bool(head), pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for at in range(max(map(len, cells), default=len(head))):
        grid.add_column(Text(head[at] if head else ""), no_wrap=at == 0)
    for row in cells:
        grid.add_row(*map(Text, row))
    terminal, printed = sys.stdout.isatty(), io.StringIO()
    Console(file=printed, force_terminal=terminal, width=None if terminal else UNFOLDED).print(grid)
    return [line.rstrip() for line in printed.getvalue().splitlines()]


def size(count: float) -> str:
    """A number of bytes as a person reads it, in powers of 1000 ("1.23 MB")."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    return f"{count:.2f} GB"


def figure(value: float) -> str:
    """A measured number as a person reads it: four digits, or all of those before the point ("0.001007", "14,620")."""
    return f"{value:,.4g}" if abs(value) < 9999.5 or not math.isfinite(value) else f"{value:,.0f}"
