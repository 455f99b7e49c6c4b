"""The memory of this process, on systems that tell it in different ways."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from drupe_files import peak_memory


@pytest.mark.skipif(sys.platform != "linux", reason="the process table is Linux's")
def test_the_peak_is_known_also_where_the_process_table_does_not_tell_it(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = peak_memory()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "Name:\tpython\nVmRSS:\t1000 kB\n")
    other = peak_memory()
    assert usual is not None and other is not None and 0.5 < other / usual < 20
