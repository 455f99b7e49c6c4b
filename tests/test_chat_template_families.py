"""Chat templates of the most used families: what transformers, Drupe and onnxruntime-genai make of them.

They are in `chat_templates/`. Their control flow and constructs are those of the published templates, in other words.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import tokenizer_text

from drupe.api import ModelError
from drupe_decoding import Message
from drupe_tokenization import Conversation, apply_chat_template, conversations

FOLDER = Path(__file__).parent / "chat_templates"
FAMILIES = sorted(path.stem for path in FOLDER.glob("*.jinja"))
UNCHANGED = {"gemma2", "gemma3", "mistral-v0.3", "phi3", "phi4", "phi4-mini", "qwen2.5"}
"""Those that onnxruntime-genai's engine reads as meant; the others are rewritten."""
DIFFERENT = {"smollm3": ["a tool with nested parameters"]}
"""What stays different in onnxruntime-genai: here Python's spelling of null."""


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer of transformers."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "tokenizer.json").write_text(tokenizer_text(), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|bos|>", "eos_token": "<|end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def template(family: str) -> str:
    return (FOLDER / f"{family}.jinja").read_text(encoding="utf-8")


def of_transformers(reference: Any, family: str, conversation: Conversation) -> str | None:
    """The prompt; None where the template refuses the conversation, or fails."""
    try:
        made = reference.apply_chat_template(
            list(conversation.messages),
            tools=conversation.tools,
            chat_template=template(family),
            tokenize=False,
            add_generation_prompt=conversation.add_generation_prompt,
        )
    except Exception:  # a template fails in any way
        return None
    return str(made)


def of_drupe(folder: Path, conversation: Conversation) -> str | None:
    messages = [
        Message(each["role"], each["content"], {key: each[key] for key in each if key not in ("role", "content")})
        for each in conversation.messages
    ]
    try:
        return apply_chat_template(
            folder, messages, conversation.tools, add_generation_prompt=conversation.add_generation_prompt
        )
    except ModelError:
        return None


def test_a_session_makes_the_prompts_of_transformers(reference: Any, family: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<|bos|>", "eos_token": "<|end|>"}')
    (tmp_path / "chat_template.jinja").write_text(template(family), encoding="utf-8")
    for conversation in conversations():
        assert of_drupe(tmp_path, conversation) == of_transformers(reference, family, conversation), conversation.name


def test_a_plain_script_makes_the_prompts_of_transformers(reference: Any, family: str) -> None:
    pytest.importorskip("onnxruntime_genai")
    from drupe_onnxruntime.genai.templates.choosing import choose
    from drupe_onnxruntime.genai.templates.engine import template_engine

    tokens = {"bos_token": "<|bos|>", "eos_token": "<|end|>"}
    chosen, notices = choose(template(family), tokens, tools=True)
    assert (chosen == template(family)) == (family in UNCHANGED)
    expected = {each.name: of_transformers(reference, family, each) for each in conversations()}
    with template_engine(tokens) as engine:
        given = zip(conversations(), engine.render(chosen, conversations()), strict=True)
    other = [each.name for each, made in given if expected[each.name] is not None and made.text != expected[each.name]]
    assert [name for name in other if name != "content in parts"] == DIFFERENT.get(family, [])
    handling = [] if family in UNCHANGED else ["rewritten"]
    assert [each.handling for each in notices] == handling + ["served by Drupe only"] * (family in DIFFERENT)
