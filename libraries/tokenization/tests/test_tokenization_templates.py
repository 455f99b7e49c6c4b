"""Chat templates: where they are found, and prompts as transformers makes them."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny import tokenizer_text

from drupe.api import ModelError
from drupe_decoding import Message
from drupe_tokenization import TemplateRefusal, apply_chat_template, conversations, render, templates_in_folder
from drupe_tokenization.token_texts import OF_CLASSES

HELLO = [Message("user", "<hello> & goodbye")]
TOOL = {"type": "function", "function": {"name": "clock", "description": "é", "parameters": {"type": "object"}}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.json").write_text(tokenizer_text(), encoding="utf-8")
    return tmp_path


def template(folder: Path, text: object, **config: object) -> Path:
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **config, "chat_template": text}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def of_transformers(folder: Path, messages: list[Mapping[str, Any]], **settings: Any) -> str:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    made = tokenizer.apply_chat_template(messages, tokenize=False, **{"add_generation_prompt": True, **settings})
    assert isinstance(made, str)
    return made


@pytest.mark.parametrize(
    "text",
    [
        "{%- for message in messages %}\n    {%- if loop.index0 > 3 %}{% break %}{% endif %}\n"
        "{{ bos_token }}{{ message | tojson }}\n{% endfor %}{{ strftime_now('%Y') }}|{{ eos_token }}"
        "{% if add_generation_prompt %}>{% endif %}",
        "   {% if true %}\n  a\n   {% endif %}\nb\n",
        "{% generation %}{{ messages[0].content }}{% endgeneration %}",
        "{{ messages | tojson(indent=2) }}{{ messages | tojson(separators=(',', ':'), sort_keys=true) }}",
        "{{ 'é' | tojson }}{{ 'é' | tojson(ensure_ascii=true) }}",
        "{{ tools is none }}{{ documents is none }}{{ pad_token is defined }}",
        "{{ image_token }}{{ unk_token }}{{ think }}",
        "{% set ns = namespace(a=1) %}{% for m in messages %}{% set ns.a = ns.a + 1 %}{% endfor %}{{ ns.a }}",
        "{{ dict(a=1) }}{{ range(3) | list }}{{ namespace(a=1).a }}",
    ],
)
def test_a_prompt_is_the_one_of_transformers(folder: Path, text: str) -> None:
    added = {"__type": "AddedToken", "content": "<|end|>", "special": True}
    tokens = {"bos_token": "<|bos|>", "eos_token": added, "pad_token": None, "image_token": "<|img|>"}
    more = {"unk_token": "<|bos|>", "extra_special_tokens": {"think": "<think>"}}
    template(folder, text, **tokens, added_tokens_decoder={}, **more)
    assert apply_chat_template(folder, HELLO) == of_transformers(folder, [HELLO[0].document()])


@pytest.mark.parametrize("listed", [False, True])
def test_special_tokens_in_the_older_file_count_where_transformers_counts_them(folder: Path, listed: bool) -> None:
    config = {"bos_token": "<|bos|>"} | ({"added_tokens_decoder": {}} if listed else {})
    template(folder, "{{ bos_token }}|{{ eos_token }}", **config)
    (folder / "special_tokens_map.json").write_text('{"bos_token": "<|end|>", "eos_token": {"content": "<|end|>"}}')
    assert apply_chat_template(folder, HELLO) == of_transformers(folder, [HELLO[0].document()])


@pytest.mark.parametrize("name", [*OF_CLASSES, "LlamaTokenizer", "PreTrainedTokenizerFast", "Qwen2TokenizerFast"])
@pytest.mark.parametrize("config", [{}, {"bos_token": None, "eos_token": "<|end|>"}])
def test_special_tokens_that_the_configuration_leaves_out_are_those_of_its_class(
    folder: Path, name: str, config: dict[str, Any]
) -> None:
    tokens = ("bos_token", "eos_token", "unk_token", "pad_token", "mask_token")
    template(
        folder,
        "".join("{{ " + each + " }}{{ " + each + " is defined }}|" for each in tokens),
        tokenizer_class=name,
        **config,
    )
    assert apply_chat_template(folder, HELLO) == of_transformers(folder, [HELLO[0].document()])


def test_what_a_template_reads_beside_the_messages_reaches_it(folder: Path) -> None:
    text = (
        "{{ tools | tojson }}{{ documents[0].text }}{{ enable_thinking }}{{ messages[1].tool_calls | tojson }}"
        "{{ messages[1].content is defined }}{{ messages[1].thinking }}{{ messages[1].reasoning_content }}"
    )
    template(folder, text)
    fields = {"tool_calls": [{"function": {"name": "clock", "arguments": {"a": None}}}], "reasoning_content": "hm"}
    messages = [HELLO[0], Message("assistant", None, fields)]
    settings = {"documents": [{"text": "D"}], "enable_thinking": False}
    expected = of_transformers(folder, [message.document() for message in messages], tools=[TOOL], **settings)
    assert "Falsehmhm" in expected
    assert apply_chat_template(folder, messages, [TOOL], **settings) == expected


@pytest.mark.parametrize(
    "text", ["{% for m in messages %}<{{ m.content }}>{% endfor %}", "{{ messages[-1].content | trim }}."]
)
def test_the_last_message_can_be_continued(folder: Path, text: str) -> None:
    template(folder, text)
    messages = [HELLO[0], Message("assistant", "It is ")]
    expected = of_transformers(
        folder, [each.document() for each in messages], add_generation_prompt=False, continue_final_message=True
    )
    assert apply_chat_template(folder, messages, continue_final_message=True) == expected


def test_parts_of_a_message_can_be_continued_and_messages_be_mappings(folder: Path) -> None:
    template(folder, "{% for p in messages[-1].content %}<{{ p.text or p.type }}>{% endfor %}")
    parts = [{"type": "text", "text": "It is"}, {"type": "image"}]
    messages = [HELLO[0].document(), {"role": "assistant", "content": parts}]
    expected = of_transformers(folder, messages, add_generation_prompt=False, continue_final_message=True)
    assert apply_chat_template(folder, messages, continue_final_message=True) == expected == "<It is"


def test_a_message_without_text_cannot_be_continued(folder: Path) -> None:
    with pytest.raises(ModelError, match="no text"):
        apply_chat_template(template(folder, "x"), [Message("assistant")], continue_final_message=True)
    with pytest.raises(ModelError, match="leaves out the last message"):
        apply_chat_template(template(folder, "x"), HELLO, continue_final_message=True)


def test_of_several_templates_the_default_one_is_taken_and_another_for_tools(folder: Path) -> None:
    template(folder, [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}])
    assert apply_chat_template(folder, HELLO) == "D" == of_transformers(folder, [HELLO[0].document()])
    tooled = of_transformers(folder, [HELLO[0].document()], tools=[TOOL])
    assert apply_chat_template(folder, HELLO, [TOOL]) == "T" == tooled


def test_several_templates_without_a_default_are_an_error_with_a_cure(folder: Path) -> None:
    template(folder, [{"name": "rag", "template": "R"}, {"name": "tool_use", "template": "T"}])
    with pytest.raises(ModelError, match=r"no chat template that is named 'default', but only rag, tool_use") as caught:
        apply_chat_template(folder, HELLO)
    (folder / "chat_template.jinja").write_text("R")
    assert "chat_template.jinja" in caught.value.cure
    assert apply_chat_template(folder, HELLO) == "R" == of_transformers(folder, [HELLO[0].document()])


PLACES = {
    "chat_template.jinja": "1", "tokenizer_config.json": '{"chat_template": "2"}',
    "special_tokens_map.json": '{"chat_template": "3"}', "chat_template.json": '{"chat_template": "4"}',
    "processor_config.json": '{"chat_template": "5"}', "preprocessor_config.json": '{"chat_template": "6"}',
    "chat_templates/default.jinja": "7",
}  # fmt: skip


@pytest.mark.parametrize("first", range(len(PLACES)))
def test_each_place_is_read_and_the_first_one_wins(tmp_path: Path, first: int) -> None:
    places = list(PLACES)[first:]
    for name in places:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(PLACES[name])
    found = templates_in_folder(tmp_path)
    assert found.texts == {"default": str(first + 1)}
    chosen = [notice for notice in found.notices if "hold different chat templates" in notice.what]
    assert [each.what.split(" and ")[1].split()[0] for each in chosen] == [name.split("/")[0] for name in places[1:]]
    assert all(each.about == "chat template" and each.handling == "chosen" for each in chosen)


def test_the_same_template_in_two_places_is_no_news(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "a\\r\\nb"}')
    (tmp_path / "chat_template.jinja").write_bytes(b"a\r\nb\n")
    assert templates_in_folder(tmp_path).notices == ()


def test_a_template_that_only_processors_read_is_used_and_said(tmp_path: Path) -> None:
    (tmp_path / "chat_template.json").write_text('{"chat_template": "P"}')
    assert apply_chat_template(tmp_path, HELLO) == "P"
    (notice,) = templates_in_folder(tmp_path).notices
    assert "chat_template.json" in notice.what


def test_additional_templates_stand_beside_the_default_one(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("T", encoding="utf-8")
    (folder / "chat_template.jinja").write_text("D é", encoding="utf-8")
    template(folder, None)
    assert apply_chat_template(folder, HELLO) == "D é" == of_transformers(folder, [HELLO[0].document()])
    assert apply_chat_template(folder, HELLO, [TOOL]) == "T"


@pytest.mark.parametrize("entry", [3, [{"name": "default"}], [{"name": "default", "template": 3}], {"default": 1}])
def test_a_template_that_is_no_text_is_an_error(folder: Path, entry: object) -> None:
    with pytest.raises(ModelError, match="neither a text nor a list"):
        apply_chat_template(template(folder, entry), HELLO)


@pytest.mark.parametrize("text", ["", " \n\t"])
@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json"])
def test_an_empty_template_is_said_with_its_place_and_refused(tmp_path: Path, place: str, text: str) -> None:
    held = text if place.endswith(".jinja") else json.dumps({"chat_template": text})
    (tmp_path / place).write_text(held)
    templates = templates_in_folder(tmp_path)
    (notice,) = templates.notices
    assert notice.what.startswith(f"the chat template in {place} is empty") and "transformers" in notice.what
    with pytest.raises(ModelError, match="is empty") as caught:
        apply_chat_template(tmp_path, [Message("user", "hi")])
    assert "drupe generate" in (caught.value.cure or "")


def test_no_template_is_said_so(folder: Path) -> None:
    with pytest.raises(ModelError, match="no chat template"):
        apply_chat_template(folder, HELLO)


@pytest.mark.parametrize(
    "text",
    [
        "{{ messages.__class__.__mro__ }}", "{{ messages.append(1) }}", "{{ namespace(_a=1) }}", "{{ 1 / 0 }}",
        "{{ 'a' + messages[0].nothing }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ none | length }}",
    ],
)  # fmt: skip
def test_a_template_that_fails_or_reaches_outside_its_sandbox_is_an_error(folder: Path, text: str) -> None:
    with pytest.raises(ModelError, match="chat template cannot be used"):
        apply_chat_template(template(folder, text), HELLO)


def test_a_template_that_is_not_jinja_is_an_error_with_its_line(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"not valid.*line 2") as caught:
        apply_chat_template(template(folder, "a\n{% if %}"), HELLO)
    assert caught.value.cure


def test_a_template_that_refuses_a_conversation_says_why(folder: Path) -> None:
    with pytest.raises(TemplateRefusal, match="refuses the conversation: roles must alternate"):
        apply_chat_template(template(folder, "{{ raise_exception('roles must alternate') }}"), HELLO)


def test_the_conversations_reach_every_kind_of_turn() -> None:
    @functools.cache
    def seen(text: str) -> set[str]:
        return {render(text, each.messages, each.tools, {}) for each in conversations()}

    assert len({each.name for each in conversations()}) == len(conversations())
    assert seen("{{ messages | selectattr('tool_calls', 'defined') | list | length > 0 }}") == {"True", "False"}
    assert seen("{{ messages[0].role }}") == {"user", "system", "assistant"}
    assert seen("{{ tools | length if tools else 0 }}") == {"0", "1", "2"}


def test_a_prompt_needs_no_transformers_and_finding_templates_no_jinja2(folder: Path) -> None:
    template(folder, "x{{ messages[0].content }}")
    program = (
        "import sys; from pathlib import Path; from drupe_tokenization import *; from drupe_decoding import Message;"
        f"folder = Path({str(folder)!r}); templates_in_folder(folder); assert 'jinja2' not in sys.modules;"
        "print(apply_chat_template(folder, [Message('user', 'y')]));"
        "assert not {'transformers', 'tokenizers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "xy\n"
