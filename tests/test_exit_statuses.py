"""The table of exit statuses in the documentation, against the errors."""

from __future__ import annotations

import re
from pathlib import Path

from drupe import errors

ROOT = Path(__file__).resolve().parents[1]
ENDS = {0, 1}
"""The statuses of no error: done, and an output that nobody reads to its end."""


def test_the_table_of_exit_statuses_has_each_status_of_an_error_once() -> None:
    page = (ROOT / "plugins" / "commands" / "README.md").read_text("utf-8")
    listed = [int(status) for status in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)]
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.DrupeError)]
    assert listed == sorted(ENDS | {kind.exit_status for kind in kinds})


def test_the_readme_names_the_same_statuses() -> None:
    told = (ROOT / "README.md").read_text("utf-8").partition("the exit status tells:")[2].partition("OUT is then")[0]
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.DrupeError)]
    assert {int(each) for each in re.findall(r"\d+", told)} == {kind.exit_status for kind in kinds} - ENDS
