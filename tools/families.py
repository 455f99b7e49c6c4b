"""Writes the table of families into docs/families.md, from the cases that the tests run: `python tools/families.py`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "families.md"
MARK = "<!-- table: python3 tools/families.py -->"


def page() -> str:
    """The page with the table as it should be."""
    text, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    return f"{text}{mark}\n{table()}"


def table() -> str:
    """One row for each family: what it is, and what its cases turn on."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    import decoder_families

    from drupe_model_builder.finding import own_families, summary_of

    shown: dict[str, list[str]] = {}
    for name, case in decoder_families.EVERY_CASE.items():
        shown.setdefault(decoder_families.model_type_of(name), []).append(case.shows)
    rows = ["| `model_type` | what it is | checked with |", "| --- | --- | --- |"]
    rows += [f"| `{name}` | {summary_of(name)} | {'; '.join(shown[name])} |" for name in own_families()]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
