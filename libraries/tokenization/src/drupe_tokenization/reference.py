"""ReferenceProcess: reads texts with `tokenizers`, in a process of its own.

Large vocabularies take memory that the conversion itself saves.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from drupe.api import ModelError, asdict
from drupe_processes.child import ChildEnded, ChildProcess
from drupe_tokenization.comparison import Comparison, Reading, comparison_from
from drupe_tokenization.document import AGAIN

LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""The environment in which a process reads a large vocabulary in a fifth less time. Other C libraries ignore it."""


class ReferenceProcess:
    """The running process. It works on the texts at once; leaving the context ends it."""

    def __init__(self, file: Path, texts: Sequence[str], rows: int | None) -> None:
        first = {"file": str(file), "texts": list(texts), "rows": rows}
        environment = {**LARGE_PAGES, **os.environ}
        self._child = ChildProcess("drupe_tokenization.reference_process", first, environment)

    def __enter__(self) -> ReferenceProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.close()

    def compared(self, other: Reading | None) -> Comparison:
        """The comparison with another reader. Raises ModelError where `tokenizers` cannot read the file."""
        self._child.send(None if other is None else asdict(other))
        try:
            answer = self._child.receive()
        except ChildEnded as end:
            answer = {"error": str(end)}
        if "error" in answer:
            raise ModelError(f"tokenizer.json cannot be read: {answer['error']}", where="tokenizer.json", cure=AGAIN)
        return comparison_from(answer)
