"""The process of ReadingProcess: reads texts with onnxruntime-genai's own tokenizer.

Its order is a folder with the tokenizer's files and an empty model, and the texts. It answers with the fields of a
`Reading`, or with {"error": ...}.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drupe_processes.parent import Answer, Orders, run_as_child

FAILED = [-1]
"""The tokens of a text that it raises an error for. It also gives -1 for what its vocabulary lacks."""


def work(orders: Orders, answer: Answer) -> None:
    """Read the texts."""
    order = next(orders)
    import onnxruntime_genai

    try:
        tokenizer = onnxruntime_genai.Tokenizer(onnxruntime_genai.Model(order["folder"]))
        read = reading(tokenizer, order["texts"])
    except Exception as error:  # bindings raise classes of their own
        read = {"error": str(error).strip()}
    answer(read)


def reading(tokenizer: Any, texts: Sequence[str]) -> dict[str, Any]:
    """The fields of what an onnxruntime_genai.Tokenizer makes of texts."""
    from drupe_tokenization.comparison import CONTEXT

    context, *tokens = [_tokens(tokenizer, text) for text in (CONTEXT, *texts)]
    decoded = [_text(tokenizer, [*context, *each]) for each in tokens]
    tokenizer.update_options(add_special_tokens="true")
    return {"tokens": tokens, "begun": _tokens(tokenizer, CONTEXT), "decoded": decoded}


def _tokens(tokenizer: Any, text: str) -> list[int]:
    """The text's tokens; FAILED where it raises an error."""
    try:
        tokens: list[int] = tokenizer.encode(text).tolist()
    except Exception:  # bindings raise classes of their own
        return FAILED
    return tokens


def _text(tokenizer: Any, tokens: Sequence[int]) -> str:
    """The text that a stream gives for the tokens, as far as it knows them."""
    stream = tokenizer.create_stream()
    try:
        return "".join(stream.decode(token) for token in tokens if token >= 0)
    except Exception as error:  # bindings raise classes of their own
        return str(error)


if __name__ == "__main__":
    run_as_child(work)
