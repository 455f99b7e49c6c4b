"""Writes the tables of Olive's passes and flags into docs/olive.md: `python tools/olive_passes.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "olive.md"
MARK = "<!-- table: python3 tools/olive_passes.py -->"


def page() -> str:
    """The page with the tables as they should be."""
    text, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    return f"{text}{mark}\n{table()}\n{commands()}"


def cell(answer: Any) -> str:
    """An answer as it stands in a table."""
    from drupe_olive_compat.answers import MISSING

    instead = "instead: " if answer.handling == MISSING else ""
    return f"**{answer.handling}**: {answer.what}" + (f" ({instead}{answer.cure})" if answer.cure else "")


def commands() -> str:
    """What becomes of Olive's commands, and for each that is carried out, of its flags."""
    from drupe_olive_compat.flag_table import COMMANDS, NOT_DONE

    rows = ["## Commands", "", "| command of Olive | what becomes of it |", "| --- | --- |"]
    rows += [f"| `{name}` | {cell(command.answer)} |" for name, command in COMMANDS.items()]
    rows += [f"| `{name}` | {cell(answer)} |" for name, answer in NOT_DONE.items() if name not in COMMANDS]
    flags: dict[tuple[str, str], list[str]] = {}
    for name, command in COMMANDS.items():
        for flag in command.flags:
            spelled = ", ".join(f"`{each}`" for each in flag.names)
            flags.setdefault((spelled, cell(flag.answer)), []).append(name)
    rows += ["", "## Flags", "", "| flag of Olive | of | what becomes of it |", "| --- | --- | --- |"]
    for (spelled, told), names in flags.items():
        of = "all" if len(names) == len(COMMANDS) else ", ".join(names)
        rows.append(f"| {spelled} | {of} | {told} |")
    return "\n".join(rows) + "\n"


def table() -> str:
    """One row for each pass type: what becomes of it for a checkpoint, and for an ONNX graph."""
    from drupe_olive_compat.pass_table import PASSES

    rows = ["| pass of Olive | for a checkpoint | for an ONNX graph |", "| --- | --- | --- |"]
    for name, rule in PASSES.items():
        graph = "the same" if rule.graph is None or rule.graph == rule.built else cell(rule.graph)
        rows.append(f"| `{name}` | {cell(rule.built)} | {graph} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
