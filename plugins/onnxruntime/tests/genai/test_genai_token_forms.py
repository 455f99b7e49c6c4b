"""For every form of tokenizer.json that popular families use, the rewritten form is read like tokenizers reads it.

Where it cannot be, the number of texts that differ is at most what stands here, and users are told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from tokenizer_forms import MAKERS, tokenizer_files

from drupe_onnxruntime.genai import tokenizer_files as adapting
from drupe_onnxruntime.genai.empty_model import write_empty_model
from drupe_onnxruntime.genai.reading_process import reading
from drupe_tokenization import Comparison, Reading, Reference, TokenizerDocument, awkward_texts

READ_AS_THEY_ARE = {"gpt2", "llama3", "tekken", "phi4", "rstrip", "normalized"}
REWRITTEN = {"gpt2 as llama", "smollm", "split before bytes", "deepseek3"}
"""Read differently or not at all without rewriting, and like tokenizers with it."""
NEARER = {
    "falcon": 8, "deepseek coder": 40, "lstrip": 4, "llama2": 12, "phi3": 12, "mistral3": 90, "always": 60, "never": 12,
    "gemma": 12, "t5": 150, "camembert": 150,
}  # fmt: skip
"""How many texts may differ in the rewritten form; without it more of them do, or none is read."""
AS_FAR = {
    "gpt2 with prefix space", "neox", "qwen2", "whitespace split", "single word", "nfkc", "lowercase", "strip",
    "replace",
}  # fmt: skip
"""No other form of them is read better."""
NOT_READ = {"bert", "bert as generic", "word level"}


def compared(files: Mapping[str, Path | bytes], folder: Path) -> Comparison:
    """Raises what onnxruntime-genai raises for a tokenizer that it cannot read."""
    from onnxruntime_genai import Model, Tokenizer
    from tokenizers import Tokenizer as Fast

    folder.mkdir()
    for name, content in files.items():
        assert isinstance(content, bytes)
        (folder / name).write_bytes(content)
    write_empty_model(folder)
    texts = awkward_texts(json.loads(adapting.read(files["tokenizer.json"]))["added_tokens"])
    reference = Reference(Fast.from_file(str(folder / "tokenizer.json")), texts)
    return reference.compared(Reading(**reading(Tokenizer(Model(str(folder))), texts)))


def adapted(name: str) -> dict[str, Path | bytes]:
    """The files of a form as package-genai changes them."""
    return changed(dict(tokenizer_files(name)))


def changed(files: dict[str, Path | bytes]) -> dict[str, Path | bytes]:
    files.update(adapting.readable(files))
    files.update(adapting.own_form(files, adapting.tokenizer_in(files)).files())
    return files


def test_every_form_has_an_expectation() -> None:
    assert {*READ_AS_THEY_ARE, *REWRITTEN, *NEARER, *AS_FAR, *NOT_READ} == set(MAKERS)


@pytest.mark.parametrize("name", sorted({*READ_AS_THEY_ARE, *REWRITTEN}))
def test_its_tokens_are_those_of_tokenizers(name: str, tmp_path: Path) -> None:
    found = compared(adapted(name), tmp_path / "package")
    assert (found.encoded, found.decoded, found.begun) == (0, 0, None), found


@pytest.mark.parametrize("name", sorted(READ_AS_THEY_ARE | AS_FAR))
def test_what_no_other_form_makes_better_stays_as_it_is(name: str) -> None:
    assert adapted(name) == tokenizer_files(name)


@pytest.mark.parametrize("name", sorted({*REWRITTEN, *NEARER}))
def test_the_rewritten_form_is_read_better_and_the_checkpoints_file_stays(name: str, tmp_path: Path) -> None:
    found = compared(adapted(name), tmp_path / "package")
    assert adapted(name)["tokenizer.json"] == tokenizer_files(name)["tokenizer.json"]
    assert found.encoded <= NEARER.get(name, 0), found
    assert (found.decoded, found.begun) == (0, None), found
    try:
        before = compared(tokenizer_files(name), tmp_path / "before")
    except RuntimeError:
        return
    assert before.encoded > found.encoded or before.begun is not None


@pytest.mark.parametrize("name", sorted(AS_FAR))
def test_what_cannot_be_expressed_is_found(name: str, tmp_path: Path) -> None:
    found = compared(adapted(name), tmp_path / "package")
    assert 0 < found.encoded <= found.texts
    assert found.first_encoded is not None
    assert found.first_encoded.right != found.first_encoded.found


@pytest.mark.parametrize("name", sorted(NOT_READ))
def test_what_it_cannot_read_is_refused_by_its_kind(name: str, tmp_path: Path) -> None:
    kind = TokenizerDocument.read(tokenizer_files(name)["tokenizer.json"]).kind
    with pytest.raises(RuntimeError, match=f"Unsupported tokenizer class: {kind}"):
        compared(adapted(name), tmp_path / "package")


SPACED = "{{ bos_token }}{% for m in messages %}<|user|> {{ m.content }}{{ eos_token }}{% endfor %}"
LINES = "{{ bos_token }}{% for m in messages %}<|user|>\n{{ m.content }}<|end|>\n{% endfor %}"
SPACED_PROMPT, LINES_PROMPT = "<s><|user|> Hello you</s><|user|> Hi</s>", "<s><|user|>\nHello you<|end|>\n<|user|>\nHi"


@pytest.mark.parametrize(
    ("template", "texts"),
    [(SPACED, ["Hello you", SPACED_PROMPT]), (LINES, [" Hello you", LINES_PROMPT]), (None, ["Hello you", "<s> Hello"])],
)
def test_a_first_word_mark_is_put_where_the_models_prompts_need_it(
    template: str | None, texts: list[str], tmp_path: Path
) -> None:
    from onnxruntime_genai import Model, Tokenizer
    from tokenizers import Tokenizer as Fast

    files: dict[str, Path | bytes] = dict(tokenizer_files("mistral3"))
    files |= {"chat_template.jinja": template.encode()} if template else {}
    for name, content in changed(files).items():
        (tmp_path / name).write_bytes(adapting.read(content))
    write_empty_model(tmp_path)
    right, found = Fast.from_file(str(tmp_path / "tokenizer.json")), Tokenizer(Model(str(tmp_path)))
    for text in texts:
        assert found.encode(text).tolist() == right.encode(text, add_special_tokens=False).ids, text
