"""Ctrl-C ends a command, also where a library swallows the KeyboardInterrupt, or makes another error of it."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest
from sites import Site

HEAD = """
import pathlib, time
from drupe.api import ModelError, Ref, UsageError, hookimpl

@hookimpl
def drupe_commands():
    return [Ref("wait", "waiting:wait", "waits")]

def ready():
    pathlib.Path("ready").touch()
"""
WAYS = {
    "in-a-destructor": """
class Slow:
    def __del__(self):
        ready()
        time.sleep(30)
def wait():
    slow = Slow()
    del slow
    time.sleep(30)
""",
    "by-catching-everything": """
def wait():
    try:
        ready()
        time.sleep(30)
    except BaseException:
        pass
    time.sleep(30)
""",
    "by-another-error": """
def wait():
    try:
        ready()
        time.sleep(30)
    except KeyboardInterrupt as error:
        raise ModelError("the library cannot be loaded", cure="install it again") from error
""",
    "by-a-crash": """
def wait():
    try:
        ready()
        time.sleep(30)
    except KeyboardInterrupt as error:
        raise ImportError("initialization failed") from error
""",
    "not-at-all-while-python-takes-long-to-end": """
class Slow:
    def __del__(self, sleep=time.sleep, cleared=pathlib.Path("cleared")):
        sleep(1.5)
        cleared.touch()
slow = Slow()
def wait():
    ready()
    time.sleep(30)
""",
    "not-at-all": """
def wait():
    ready()
    try:
        time.sleep(30)
    finally:
        time.sleep(1.5)  # it takes a while to clear up
        pathlib.Path("cleared").touch()
""",
}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timer that sends signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("way", WAYS)
def test_a_command_stops_where_its_interrupt_is_lost(tmp_path: Path, way: str, number: int) -> None:
    site = Site(tmp_path / "site")
    site.folder.mkdir()
    site.ship("drupe-commands")
    site.allow("idle")
    site.add("idle", {"idle": "waiting"}, {"waiting.py": HEAD + WAYS[way]})
    process = subprocess.Popen(
        site.command("wait"),
        env=site.environ(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "ready").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(number)
    _, told = process.communicate()
    assert process.returncode == 130, told
    assert [line for line in told.splitlines() if line.startswith("error")] == ["error: stopped"]
    assert (tmp_path / "cleared").exists() == way.startswith("not-at-all")
