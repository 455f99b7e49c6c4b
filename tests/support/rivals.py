"""A second plugin, `rival`, beside acme, the kernel's example of a third party."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sites import Site

HEAD = "from drupe.api import *\nfrom drupe.api import Claim, Fact, Model, Option, Ref, Stage, Step, hookimpl\n"
CLAIM = """
@hookimpl
def drupe_claim(stage, model, target, request):
    {body}
"""
OPTION = """
@hookimpl
def drupe_options():
    return [{options}]
"""


@contextmanager
def installed(acme: Site, body: str = "", *, ships: bool = False) -> Iterator[None]:
    """acme, which ships with Drupe, and a second plugin, `rival`."""
    if body:
        acme.add("rival", {"rival": "rival"}, {"rival.py": HEAD + body})
    acme.ship("acme", *(("rival",) if ships else ()))
    acme.allow("rival")
    with acme.installed_here():
        yield
