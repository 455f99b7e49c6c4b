"""A process that reads texts with `tokenizers`. Large vocabularies take memory that the conversion itself saves.

It gets two lines of JSON: first the file, the texts and the rows of the embedding; later the reading to compare with,
or null. It works on the first while the other reader works. It prints the comparison, or the error.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from drupe_tokenization.comparison import Comparison, Reading, Reference, comparison_from

LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""The environment in which a process reads a large vocabulary in a fifth less time. Other C libraries ignore it."""


class ReferenceProcess:
    """The running process. `compared` ends it; so does leaving the context."""

    def __init__(self, file: Path, texts: Sequence[str], rows: int | None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "drupe_tokenization.reference_process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", errors="replace",
            env={**LARGE_PAGES, **os.environ},
        )  # fmt: skip
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # where it has ended already, `compared` says why
            self._process.stdin.write(json.dumps({"file": str(file), "texts": list(texts), "rows": rows}) + "\n")
            self._process.stdin.flush()

    def __enter__(self) -> ReferenceProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def compared(self, other: Reading | None) -> Comparison:
        """The comparison with another reader. Raises ModelError where `tokenizers` cannot read the file."""
        from drupe.api import ModelError
        from drupe_tokenization.document import AGAIN

        output, errors = self._process.communicate(json.dumps(None if other is None else asdict(other)) + "\n")
        reason = errors.strip().rpartition("\n")[2] or "the process ended without an answer"
        answer = json.loads(output) if output else {"error": reason}
        if "error" in answer:
            raise ModelError(f"tokenizer.json cannot be read: {answer['error']}", where="tokenizer.json", cure=AGAIN)
        return comparison_from(answer)


def main() -> None:
    from tokenizers import Tokenizer

    orders = json.loads(sys.stdin.readline())
    try:
        reference = Reference(Tokenizer.from_file(orders["file"]), orders["texts"], orders["rows"])
    except Exception as error:  # tokenizers raises plain Exceptions
        print(json.dumps({"error": str(error)}))
        return
    other = json.loads(sys.stdin.readline())
    print(json.dumps(asdict(reference.compared(None if other is None else Reading(**other)))), flush=True)
    os._exit(0)  # giving back a large vocabulary piece by piece takes time


if __name__ == "__main__":
    main()
