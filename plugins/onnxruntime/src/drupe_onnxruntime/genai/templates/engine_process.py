"""The process of TemplateEngine: renders conversations with the templates that it is given.

Its first order is the folder with the files of a model; it answers when it is ready. Each other order is a template
with conversations. The answer is a list: the text that onnxruntime-genai makes of each conversation, or null, and the
error.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from drupe_processes.parent import Answer, Orders, run_as_child

MEMORY = 8 * 2**30
"""The address space that the process may have, in bytes: a template can ask for any amount."""


def work(orders: Orders, answer: Answer) -> None:
    """Render what the orders hold."""
    _limit_memory()
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime_genai

    folder = Path(next(orders))
    model = onnxruntime_genai.Model(str(folder))
    answer("ready")
    for order in orders:
        (folder / "tokenizer_config.json").write_text(json.dumps(order["settings"]), encoding="utf-8")
        tokenizer = onnxruntime_genai.Tokenizer(model)
        answer([_rendered(tokenizer, *case) for case in order["cases"]])


def _rendered(tokenizer: Any, messages: str, tools: str | None, prompt: bool) -> tuple[str | None, str]:
    try:
        return tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=prompt), ""
    except Exception as error:  # the engine raises RuntimeError, and UnicodeDecodeError for half a character
        return None, str(error).splitlines()[0]


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


if __name__ == "__main__":
    run_as_child(work)
