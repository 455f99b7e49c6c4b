"""Writes the table of Olive's passes into docs/olive.md: `python tools/olive_passes.py`."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "olive.md"
MARK = "<!-- table: python3 tools/olive_passes.py -->"


def page() -> str:
    """The page with the table as it should be."""
    text, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    return f"{text}{mark}\n{table()}"


def table() -> str:
    """One row for each pass type: what becomes of it for a checkpoint, and for an ONNX graph."""
    from drupe_olive_compat.answers import Answer
    from drupe_olive_compat.pass_table import PASSES

    def cell(answer: Answer) -> str:
        return f"**{answer.handling}**: {answer.what}" + (f" (instead: {answer.cure})" if answer.cure else "")

    rows = ["| pass of Olive | for a checkpoint | for an ONNX graph |", "| --- | --- | --- |"]
    for name, rule in PASSES.items():
        graph = "the same" if rule.graph is None or rule.graph == rule.built else cell(rule.graph)
        rows.append(f"| `{name}` | {cell(rule.built)} | {graph} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
