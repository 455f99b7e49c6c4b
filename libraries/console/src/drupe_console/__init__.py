"""What commands print: tables, sizes, progress, and the events of a run. rich is loaded when something is shown."""

from drupe_console.narrator import Narrator
from drupe_console.progress import LineProgress, TerminalProgress, progress
from drupe_console.tables import figure, size, table, table_lines

__all__ = ["LineProgress", "Narrator", "TerminalProgress", "figure", "progress", "size", "table", "table_lines"]
