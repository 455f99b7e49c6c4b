"""The demo model's text: the running Python's standard library, split into training and held-out documents.

Only text that comes with every CPython is used, so that anyone can rebuild the corpus and measure quality without a
download. Names of authors and mail addresses in comments are dropped from the training text: a model this small
learns boilerplate by heart, and personal data has no place in a demo.
"""

from __future__ import annotations

import hashlib
import pydoc_data.topics
import re
import sysconfig
from dataclasses import dataclass
from pathlib import Path

# Whole modules, added to the library by the Python developers themselves, without other licences or author lines.
HELD_OUT_MODULES = ("graphlib.py", "json/decoder.py", "queue.py", "secrets.py")

MAX_FILE_BYTES = 400_000
MIN_FILE_BYTES = 200

_SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "__pycache__", "lib-dynload", "cjkencodings"})
# Tables and generated data (also the build's own configuration, which holds paths of the machine it was built on).
_SKIPPED_FILES = re.compile(
    r"(^|/)(config-[^/]*/|_sysconfigdata|encodings/(cp|mac_|iso8859|koi8|kz|tis|hp_|ptcp|palmos)|"
    r"test/(bad|encoded|test_lib2to3/data)|lib2to3/tests/data|stringprep|this\.py)"
)
_PERSONAL_COMMENT = re.compile(
    r"^\s*(#.*(\S+@\S+\.\S+|\bat\b.*\bdot\b|written by|author|contributed|copyright|licensed)|"
    r"__(author|credits)__).*\n",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True)
class Corpus:
    """The documents to train on, and the held-out text to measure with."""

    documents: tuple[str, ...]
    held_out: str

    @property
    def n_bytes(self) -> int:
        return sum(len(document.encode()) for document in self.documents)


def load_corpus(stdlib: Path | None = None) -> Corpus:
    """Read the standard library at `stdlib` (by default the running Python's) in a fixed order."""
    root = stdlib or Path(sysconfig.get_path("stdlib"))
    documents = [_without_personal_comments(text) for text in _training_files(root)]
    documents.extend(_documentation_topics())
    held_out = "\n".join((root / module).read_text(encoding="utf-8") for module in HELD_OUT_MODULES)
    return Corpus(tuple(_distinct(documents)), held_out)


def _training_files(root: Path) -> list[str]:
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    texts = (_read_source(root / name) for name in names if _is_wanted(name))
    return [text for text in texts if text is not None]


def _is_wanted(name: str) -> bool:
    if name in HELD_OUT_MODULES or _SKIPPED_FILES.search(name):
        return False
    return not _SKIPPED_FOLDERS.intersection(name.split("/"))


def _read_source(path: Path) -> str | None:
    """The file's text, or None where it is too large, too small, not UTF-8 or mostly not ASCII."""
    if not MIN_FILE_BYTES <= path.stat().st_size <= MAX_FILE_BYTES:
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None
    return text if sum(not char.isascii() for char in text) < 0.02 * len(text) else None


def _documentation_topics() -> list[str]:
    """The language reference as `help()` prints it: prose, which the sources have little of."""
    return [text for _, text in sorted(pydoc_data.topics.topics.items())]


def _without_personal_comments(text: str) -> str:
    return _PERSONAL_COMMENT.sub("", text)


def _distinct(documents: list[str]) -> list[str]:
    seen: dict[str, str] = {}
    for document in documents:
        seen.setdefault(hashlib.sha256(document.strip().encode()).hexdigest(), document)
    return list(seen.values())
