"""The two built-in texts: a short one in this package, and Python's own documentation and modules."""

from __future__ import annotations

import functools
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from drupe.api import UsageError

SAMPLE = Path(__file__).with_name("sample.txt")

# These modules have many authors and subjects, and much prose in their docstrings. graphlib, json.decoder, queue and
# secrets are left out, because the embedded model of `drupe demo` is measured on them.
MODULES = (
    "_pydatetime", "argparse", "calendar", "collections/__init__", "configparser", "contextlib", "csv", "dataclasses",
    "datetime", "difflib", "email/message", "enum", "fractions", "functools", "glob", "heapq", "inspect", "ipaddress",
    "logging/__init__", "optparse", "os", "pprint", "random", "sched", "shelve", "shlex", "shutil", "statistics",
    "string", "subprocess", "textwrap", "threading", "timeit", "typing", "unittest/case", "urllib/parse", "uuid",
    "weakref",
)  # fmt: skip


def evaluation() -> str:
    """A few hundred words of prose, code and dialogue."""
    return SAMPLE.read_text(encoding="utf-8")


@functools.cache
def calibration() -> str:
    """Python's language reference (the topics of `help()`), and modules of its standard library.

    The text is the same for everyone who has the same version of Python.
    """
    documents = [*_topics(), *_modules()]
    if not documents:
        raise UsageError(
            "this Python installation lacks the sources that drupe calibrates with", cure="--calibration-data FILE"
        )
    return "\n\n".join(documents)


def _topics() -> Iterator[str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some systems put it into another package
        return
    yield from (text for _, text in sorted(topics.items()))


def _modules() -> Iterator[str]:
    library = Path(sysconfig.get_path("stdlib"))
    paths = [library / f"{name}.py" for name in MODULES]
    yield from (path.read_text(encoding="utf-8") for path in paths if path.is_file())
