"""The names that `drupe` and `drupe.api` export."""

from __future__ import annotations

import runpy
import subprocess
import sys
from importlib import metadata

import pytest

import drupe
import drupe.api


def test_every_name_in_the_api_can_be_imported_and_is_listed_by_dir():
    assert {"Pass", "Ref", "hookimpl", "Claim", "Runner", "DrupeError"} <= set(dir(drupe.api))
    for name in drupe.api.__all__:
        assert getattr(drupe.api, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'drupe\.api' has no attribute 'Shape'"):
        _ = drupe.api.Shape
    with pytest.raises(ImportError):
        from drupe.api import Shape  # noqa: F401


def test_loading_the_api_does_not_replace_names_of_the_package():
    before = drupe.optimize
    for name in drupe.api.__all__:
        getattr(drupe.api, name)
    assert drupe.optimize is before
    assert drupe.registry is sys.modules["drupe.registry"]


def test_python_m_drupe_without_the_commands_names_the_distribution_to_install(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(SystemExit, match="the program is not installed\n  try: pip install drupe-commands"):
        runpy.run_module("drupe", run_name="__main__")


def test_a_plugins_entry_module_imports_nothing_heavy_through_the_api():
    script = (
        "import sys; from drupe.api import Ref, Option, Fact, Claim, Step, hookimpl\n"
        "print([name for name in ('pydantic', 'typer', 'rich', 'numpy', 'packaging') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
