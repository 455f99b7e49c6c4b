"""Text to tokens and back, and chat templates."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from drupe.api import ModelError
from drupe_decoding import Message
from drupe_tokenization import TextStream, Tokenizer, apply_chat_template


@pytest.fixture
def folder(kit: SimpleNamespace, tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.json").write_text(kit.tokenizer_file(), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("text", ["plain words", "é∑日😀 mixed é", "  spaces \n\n", "👩‍👩‍👧"])
def test_a_stream_gives_the_text_that_decoding_all_at_once_gives(folder: Path, text: str) -> None:
    tokenizer = Tokenizer(folder)
    stream = TextStream(tokenizer)
    pieces = [stream.add(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_continuation_keeps_the_space_that_it_begins_with(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models

    fast = Fast(models.BPE({"\u2581the": 0, "\u2581cat": 1, "\u2581sat": 2}, []))
    fast.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    fast.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path)
    assert tokenizer.decode([1]) == "cat"
    stream = TextStream(tokenizer, [0])
    assert [stream.add(1), stream.add(2)] == [" cat", " sat"]


def test_the_beginning_is_put_before_a_text_once(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    assert tokenizer.encode("def")[0] == 0
    assert tokenizer.encode("<|bos|>def") == tokenizer.encode("def")


def test_lone_surrogates_from_a_terminal_do_not_stop_it(folder: Path) -> None:
    assert Tokenizer(folder).encode("a\udcffb") == Tokenizer(folder).encode("a?b")


def test_a_tokenizer_that_cannot_be_read_is_an_error(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be read"):
        Tokenizer(folder)


HELLO = [Message("user", "<hello> & goodbye")]


def template(folder: Path, text: object, **config: object) -> Path:
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": text, **config}))
    return folder


def test_a_template_is_rendered_as_transformers_renders_it(folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    text = (
        "{%- for message in messages %}\n    {%- if loop.index0 > 3 %}{% break %}{% endif %}\n"
        "{{ bos_token }}{{ message | tojson }}\n{% endfor %}{{ strftime_now('%Y') }}|{{ eos_token }}"
        "{% if add_generation_prompt %}>{% endif %}"
    )
    template(folder, text, tokenizer_class="PreTrainedTokenizerFast", bos_token="<|bos|>", eos_token="<|end|>")
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "<hello> & goodbye"}]
    expected = reference.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert apply_chat_template(folder, HELLO) == expected


def test_of_several_templates_the_default_one_is_taken(folder: Path) -> None:
    entries = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    assert apply_chat_template(template(folder, entries), HELLO) == "D"


def test_a_file_of_its_own_goes_first(folder: Path) -> None:
    template(folder, "in the configuration")
    (folder / "chat_template.jinja").write_text("in the file é", encoding="utf-8")
    assert apply_chat_template(folder, HELLO) == "in the file é"


def test_no_template_is_said_so(folder: Path) -> None:
    with pytest.raises(ModelError, match="no chat template"):
        apply_chat_template(folder, HELLO)


@pytest.mark.parametrize(
    "text", ["{{ raise_exception('roles must alternate') }}", "{% if %}", "{{ messages.__class__.__mro__ }}"]
)
def test_a_template_that_fails_or_reaches_outside_its_sandbox_is_an_error(folder: Path, text: str) -> None:
    with pytest.raises(ModelError, match="chat template cannot be used"):
        apply_chat_template(template(folder, text), HELLO)
