"""The load of other programs, from counters that are given."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from drupe_timing import disturbance, load


def given(monkeypatch: pytest.MonkeyPatch, before: str, after: str) -> None:
    texts = itertools.cycle([before, after])
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: next(texts))
    monkeypatch.setattr(load.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(load, "usable_threads", lambda: 2)


def test_cores_that_others_keep_busy_are_a_disturbance(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, "cpu 9\ncpu0 0 0 0 0 0 0\ncpu1 5 0 0 7 0 0\n", "cpu 9\ncpu0 30 0 0 10 0 0\ncpu1 5 0 0 30 0 0\n")
    assert disturbance(0) == "other programs leave 1.2 of 2 cores idle"


def test_a_quiet_machine_and_other_processors_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = "cpu0 1 0 0 30 9 0\ncpu1 0 0 0 40 0 0\ncpu2 40 0 0 0 0 0\n"
    given(monkeypatch, "cpu0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0\ncpu2 0 0 0 0 0 0\n", quiet)
    assert disturbance(0) is None


@pytest.mark.parametrize("text", ["", "cpu0 a b\n"])
def test_where_the_system_tells_nothing_nothing_is_said(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    given(monkeypatch, text, text)
    assert disturbance(0) is None
