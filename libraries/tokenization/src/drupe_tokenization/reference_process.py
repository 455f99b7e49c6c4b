"""The process of ReferenceProcess: reads texts with `tokenizers`, and compares with what another reader made of them.

Its orders are the file, the texts and the rows of the embedding; later the reading to compare with, or null. It works
on the first while the other reader works. It answers with the comparison, or with the error.
"""

from __future__ import annotations

from drupe.api import asdict
from drupe_processes.parent import Answer, Orders, run_as_child
from drupe_tokenization.comparison import Reading, Reference


def work(orders: Orders, answer: Answer) -> None:
    """Read the texts, and compare with the other reading."""
    from tokenizers import Tokenizer

    order = next(orders)
    try:
        reference = Reference(Tokenizer.from_file(order["file"]), order["texts"], order["rows"])
    except Exception as error:  # tokenizers raises plain Exceptions
        answer({"error": str(error)})
        return
    other = next(orders)
    answer(asdict(reference.compared(None if other is None else Reading(**other))))


if __name__ == "__main__":
    run_as_child(work)
