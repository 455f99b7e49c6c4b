"""The process of TemplateEngine: reads templates with conversations from standard input, a JSON document a line.

It writes a line when it is ready. For each document it writes a line with a list: the text that onnxruntime-genai makes
of each conversation, or null, and the error. The folder with the files of a model is its argument.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

MEMORY = 8 * 2**30
"""The address space that the process may have, in bytes: a template can ask for any amount."""


def main(folder: Path) -> None:
    """Answer each line of standard input."""
    _limit_memory()
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime_genai

    model = onnxruntime_genai.Model(str(folder))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what native code prints must not stand among the answers
    print("[]", file=answers, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        (folder / "tokenizer_config.json").write_text(json.dumps(question["settings"]), encoding="utf-8")
        tokenizer = onnxruntime_genai.Tokenizer(model)
        print(json.dumps([_rendered(tokenizer, *case) for case in question["cases"]]), file=answers, flush=True)


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
    sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    main(Path(sys.argv[1]))
