"""What `drupe` and `drupe.api` offer to Python."""

from __future__ import annotations

import runpy
import subprocess
import sys
from importlib import metadata

import pytest

import drupe
import drupe.api


def test_every_name_of_the_api_is_there_and_listed():
    assert {"Pass", "Ref", "hookimpl", "Claim", "Runner", "DrupeError"} <= set(dir(drupe.api))
    for name in drupe.api.__all__:
        assert getattr(drupe.api, name) is not None


def test_a_name_that_is_not_there_is_an_error():
    with pytest.raises(AttributeError, match=r"module 'drupe\.api' has no attribute 'Shape'"):
        _ = drupe.api.Shape
    with pytest.raises(ImportError):
        from drupe.api import Shape  # noqa: F401


def test_what_the_api_loads_takes_no_name_of_the_package():
    before = drupe.optimize
    for name in drupe.api.__all__:
        getattr(drupe.api, name)
    assert drupe.optimize is before
    assert drupe.registry is sys.modules["drupe.registry"]


def test_without_the_program_python_says_what_brings_it(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(SystemExit, match="the program is not installed\n  try: pip install drupe-commands"):
        runpy.run_module("drupe", run_name="__main__")


def test_a_plugins_entry_module_loads_little_through_the_api():
    script = (
        "import sys; from drupe.api import Ref, Option, Fact, Claim, Step, hookimpl\n"
        "print([name for name in ('pydantic', 'typer', 'rich', 'numpy', 'packaging') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
