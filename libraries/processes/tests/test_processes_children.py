"""Child processes: what comes back, how their end is told, and that none is left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drupe_processes import child
from drupe_processes.child import ChildEnded, ChildLate, ChildProcess

BEGIN = "import os, sys, time\nfrom drupe_processes.parent import run_as_child\n"
Start = Callable[..., ChildProcess]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a child whose `work` has the given lines."""

    def started(*lines: str, first: Any = None, before: str = "", **environment: str) -> ChildProcess:
        body = "".join(f"    {line}\n" for line in lines)
        (tmp_path / "the_child.py").write_text(
            f"{before}\n{BEGIN}def work(orders, answer):\n{body}run_as_child(work)\n"
        )
        path = os.pathsep.join([str(tmp_path), *sys.path])
        return ChildProcess("the_child", first, {**os.environ, "PYTHONPATH": path, **environment})

    return started


def is_gone(process: ChildProcess) -> bool:
    """Whether the process has ended and was waited for."""
    return process._process.returncode is not None


def test_each_order_is_a_value_and_so_is_each_answer(start: Start) -> None:
    with start("for order in orders: answer([order])", first={"a": "\u2028\n\ud83d"}) as process:
        assert process.receive() == [{"a": "\u2028\n\ud83d"}]
        for value in (None, 0, [], "x" * 1_000_000):
            process.send(value)
            assert process.receive(within=60) == [value]
    assert is_gone(process)


def test_what_others_print_is_no_answer(start: Start) -> None:
    lines = "print('hello', flush=True)", "os.write(1, b'7\\n')", "answer('this')"
    with start(*lines, before="print('at the start')") as process:
        assert process.receive() == "this"


def test_a_child_that_ends_is_told_with_its_status_and_what_it_said(start: Start) -> None:
    lines = "for number in range(20): print(number, file=sys.stderr)", "os._exit(3)"
    with start(*lines) as process, pytest.raises(ChildEnded, match=r"^19$") as raised:
        process.receive()
    assert (raised.value.status, raised.value.said) == (3, tuple(map(str, range(12, 20))))
    with start("os._exit(4)") as process, pytest.raises(ChildEnded, match="the process ended with status 4"):
        process.receive()


@pytest.mark.parametrize(
    "line", ["raise ValueError('reason')", "sys.exit('reason')", "raise KeyboardInterrupt('reason')"]
)
def test_an_error_in_the_child_is_the_end_of_what_it_said(start: Start, line: str) -> None:
    with start(line) as process, pytest.raises(ChildEnded, match="reason") as raised:
        process.receive()
    assert raised.value.status == 1


def test_orders_to_a_child_that_has_ended_do_not_hide_why_it_ended(start: Start) -> None:
    with start("os._exit(5)", first="x" * 1_000_000) as process:
        process._process.wait()
        process.send("more")
        with pytest.raises(ChildEnded, match="status 5"):
            process.receive()


def test_a_child_that_takes_too_long_is_stopped(start: Start) -> None:
    with start("time.sleep(600)") as process, pytest.raises(ChildLate, match="no answer within 0 seconds") as raised:
        process.receive(within=0.1)
    assert is_gone(process) and not raised.value.out_of_memory


@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals")
def test_a_child_that_the_system_stops_has_run_out_of_memory(start: Start) -> None:
    with start("os.kill(os.getpid(), 9)") as process, pytest.raises(ChildEnded) as raised:
        process.receive()
    assert raised.value.out_of_memory


def test_leaving_the_context_ends_a_child_that_is_busy(start: Start) -> None:
    with pytest.raises(KeyboardInterrupt), start("answer(1)", "time.sleep(600)") as process:
        assert process.receive() == 1
        raise KeyboardInterrupt
    assert is_gone(process)


def test_a_child_ends_with_its_parent(start: Start) -> None:
    with start("for order in orders: pass") as process:
        process._orders.close()
        assert process._process.wait(60) == 0


def test_an_interruption_while_the_first_order_is_sent_leaves_no_child(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[str]] = []
    popen = child._start

    def noted(*arguments: Any) -> subprocess.Popen[str]:
        started.append(popen(*arguments))
        return started[0]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(child, "_start", noted)
    monkeypatch.setattr(ChildProcess, "send", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start("time.sleep(600)")
    assert started[0].returncode is not None


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent by a console")
def test_ctrl_c_reaches_the_parent_only(start: Start) -> None:
    with start("answer(os.getpgid(0))") as process:
        assert process.receive() not in (os.getpgid(0), None)


def test_the_childs_side_imports_little() -> None:
    script = "import sys; before = set(sys.modules); import drupe_processes.parent; print(*set(sys.modules) - before)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "drupe_processes.parent" in loaded
    assert not {"subprocess", "tempfile", "threading", "drupe", "lazy_loader"} & set(loaded)
