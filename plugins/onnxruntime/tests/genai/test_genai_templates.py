"""Chat templates in a package: which files hold what, and what the user is told."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from drupe.api import Notice, Target
from drupe_onnxruntime.genai.runtime import OnnxRuntimeGenai
from drupe_onnxruntime.genai.templates import choosing
from drupe_onnxruntime.genai.templates.serving import Served, served_templates
from drupe_tokenization import chat_templates

IN_TEXT = "{% for m in messages %}{% if 'ell' in m.content %}{{- 'yes' }}{% endif %}{% endfor %}{{ bos_token }}"
ALIKE = "{%- for m in messages %}{{- m.role }}{%- endfor %}"


def served(config: Mapping[str, Any] | None = None, **texts: str) -> Served:
    """What becomes of these files; `__` in a name stands for a dot, `___` for a slash."""
    names = {name.replace("___", "/").replace("__", "."): text.encode() for name, text in texts.items()}
    files: dict[str, Path | bytes] = {**names}
    if config is not None:
        files["tokenizer_config.json"] = json.dumps(config).encode()
    made = served_templates(files)
    # A second time there is nothing to do, and transformers still finds the checkpoint's templates.
    assert chat_templates({**files, **made.files}).texts == chat_templates(files).texts
    return made


def config_of(made: Served) -> dict[str, Any]:
    content = made.files["tokenizer_config.json"]
    assert isinstance(content, bytes)
    document: dict[str, Any] = json.loads(content)
    return document


@pytest.fixture(autouse=True)
def _with_the_engine() -> None:
    pytest.importorskip("onnxruntime_genai")


def test_a_template_that_the_engine_reads_as_meant_is_not_touched() -> None:
    assert served({"chat_template": ALIKE, "bos_token": "<s>"}) == Served()


def test_no_template_is_no_news() -> None:
    assert served({}) == served() == Served()


def test_a_rewritten_template_stands_in_the_configuration_and_the_original_in_its_file() -> None:
    made = served({"chat_template": IN_TEXT, "bos_token": "<s>", "extra": [1]})
    assert made.files["chat_template.jinja"] == IN_TEXT.encode()
    config = config_of(made)
    assert ".split('ell')" in config.pop("chat_template")
    assert config == {"bos_token": "<s>", "extra": [1]}
    (notice,) = made.notices
    assert (notice.about, notice.handling) == ("chat template", "rewritten")
    assert "sample conversations differently from jinja2, and none of them with the rewritten" in notice.what


def test_a_template_that_is_only_a_file_stays_there_unless_it_is_rewritten() -> None:
    assert served({}, chat_template__jinja=ALIKE) == Served()
    made = served({}, chat_template__jinja=IN_TEXT)
    assert ".split('ell')" in config_of(made)["chat_template"]
    assert set(made.files) == {"tokenizer_config.json"}


def test_a_template_with_other_line_ends_is_served_without_them() -> None:
    files = {"chat_template.jinja": b"{{- 'a' }}\r\nb"}
    assert config_of(served_templates(files))["chat_template"] == "{{- 'a' }}\nb"


def test_of_two_templates_the_one_of_transformers_is_served_and_said() -> None:
    made = served({"chat_template": "old"}, chat_template__jinja=ALIKE)
    assert config_of(made)["chat_template"] == ALIKE
    assert [notice.handling for notice in made.notices] == ["chosen"]


def test_of_named_templates_the_default_one_is_served_and_the_others_get_files() -> None:
    entries = [
        {"name": "default", "template": ALIKE},
        {"name": "rag", "template": "R"},
        {"name": "a/b", "template": "x"},
    ]
    made = served_templates({"tokenizer_config.json": json.dumps({"chat_template": entries}).encode()})
    assert config_of(made)["chat_template"] == ALIKE
    assert made.files["chat_template.jinja"] == ALIKE.encode()
    assert made.files["additional_chat_templates/rag.jinja"] == b"R"
    assert not any("a/b" in name for name in made.files)


@pytest.mark.parametrize("name", ["rag", "tool_use"])
def test_templates_without_a_default_are_told_once_with_a_cure(name: str) -> None:
    [notice] = served({"chat_template": [{"name": name, "template": "R"}]}).notices
    assert name in notice.what and "chat_template.jinja" in notice.cure


def test_a_template_for_tools_is_told_with_what_a_script_has_to_do() -> None:
    made = served({}, chat_template__jinja=ALIKE, additional_chat_templates___tool_use__jinja="T")
    (notice,) = made.notices
    assert notice.handling == "served by Drupe only"
    assert "additional_chat_templates/tool_use.jinja" in notice.cure


def test_a_template_that_only_processors_read_gets_a_file() -> None:
    made = served({}, chat_template__json=json.dumps({"chat_template": ALIKE}))
    assert made.files["chat_template.jinja"] == ALIKE.encode()
    assert config_of(made)["chat_template"] == ALIKE


def test_what_stays_different_is_told_with_a_count_and_an_example() -> None:
    made = served({"chat_template": "{{ messages[0].content | wordcount }}"})
    (notice,) = made.notices
    assert notice.handling == "served by Drupe only"
    assert "it fails with 'Value is not callable" in notice.what
    assert "apply_chat_template" in notice.cure


def test_prompts_that_differ_are_shown_where_they_differ() -> None:
    made = served({"chat_template": "A text before it. {{ none }}"})
    (notice,) = made.notices
    assert "'…efore it. '" in notice.what
    assert "for '…efore it. None'" in notice.what


@pytest.mark.parametrize(
    ("template", "reason"),
    [("{% if %}", "not valid: Expected an expression"), ("{{ 1 / 0 }}", "division by zero")],
)
def test_a_template_that_makes_no_prompt_is_told(template: str, reason: str) -> None:
    (notice,) = served({"chat_template": template}).notices
    assert notice.handling == "has no effect"
    assert reason in notice.what


@pytest.mark.parametrize(("template", "said"), [("", "is empty"), ("\n ", "is empty"), ("{# none #}", "empty prompt")])
def test_a_template_that_makes_empty_prompts_is_told_once(template: str, said: str) -> None:
    (notice,) = served_templates({"tokenizer_config.json": json.dumps({"chat_template": template}).encode()}).notices
    assert notice.handling == "has no effect" and said in notice.what and notice.cure


def test_a_template_that_is_no_text_is_left_out_and_told() -> None:
    made = served_templates({"tokenizer_config.json": b'{"chat_template": 3, "bos_token": "<s>"}'})
    assert config_of(made) == {"bos_token": "<s>"}
    (notice,) = made.notices
    assert notice.handling == "left out"
    assert "neither a text nor a list" in notice.what


def test_without_the_runtime_it_is_said_that_nothing_was_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "absence", lambda family: ("onnxruntime-genai is not installed", "pip install it"))
    (notice,) = served({"chat_template": IN_TEXT}).notices
    assert notice.handling == "not compared"
    assert notice.cure.startswith("pip install it")


def test_a_runtime_that_does_not_start_is_said_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    (notice,) = served({"chat_template": IN_TEXT + "{# started #}"}).notices
    assert "cannot be loaded" in notice.what


def test_notices_are_sentences(capfd: pytest.CaptureFixture[str]) -> None:
    made = served({"chat_template": IN_TEXT + "{{ none }}"})
    assert all(isinstance(notice, Notice) and "\n" not in notice.what + notice.cure for notice in made.notices)
    assert capfd.readouterr() == ("", "")


def test_a_package_and_a_plain_script_make_the_same_prompts(kit: SimpleNamespace, tmp_path: Path, cpu: Target) -> None:
    import onnxruntime_genai

    template = (
        "{% for m in messages %}\n{{ m.role }}{{ m.tool_calls | tojson if m.tool_calls }}\n"
        "{% if '</think>' in m.content %}{{ m.content.split('</think>', 1)[1] | replace('x', 'y') }}{% endif %}\n"
        "{% endfor %}\n{{ tools | tojson }}{{ bos_token }}{{ add_generation_prompt }}"
    )
    model = kit.make_package(kit.make_checkpoint(tmp_path / "c", template=template), tmp_path / "p", cpu)
    calls = [{"type": "function", "function": {"name": "f", "arguments": {"a": {}}}}]
    messages = [
        {"role": "user", "content": "<think></think>x</think>"},
        {"role": "assistant", "content": "", "tool_calls": calls},
    ]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    with OnnxRuntimeGenai().open(model, cpu) as session:
        prompt = session.conversation(messages, tools)
    tokenizer = onnxruntime_genai.Tokenizer(onnxruntime_genai.Model(str(model.location)))
    assert prompt == tokenizer.apply_chat_template(json.dumps(messages), tools=json.dumps(tools))
    assert prompt.startswith("user\ny</think>assistant[{")
    assert json.dumps(tools) in prompt
