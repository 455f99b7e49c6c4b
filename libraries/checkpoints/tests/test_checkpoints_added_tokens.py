"""What all files of a tokenizer together say is what AutoTokenizer makes of them, token by token."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from drupe.api import Notice
from drupe_checkpoints.tokenizer.parts import added_token, bpe, byte_level, metaspace, replace, template, tokenizer_json
from drupe_checkpoints.tokenizer.resolving import ResolvedTokenizer, resolve
from drupe_tokenization import awkward_texts

SPECIAL = ["<|bos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|pad|>"]
CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|bos|>", "eos_token": "<|end|>"}
TEXTS = [
    *awkward_texts()[::4],
    "<|im_start|>a <|im_start|> b<|end|>  <|pad|> c\n<t> <img><foo> th the plain<B> <z>  x <|bos|>",
    " <|im_end|>  <e1><a1> x", "12 34,5", " a", "a</s> b", "</s>x", "\n  x",
]  # fmt: skip


def letters() -> list[str]:
    """GPT-2's letters for the 256 bytes."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in seen] + [chr(256 + place) for place in range(256 - len(seen))]


def by_bytes() -> dict[str, Any]:
    """A byte-level tokenizer.json with six special tokens and a few merges."""
    merges = [["t", "h"], ["th", "e"], ["Ġ", "t"], ["Ġ", "a"], ["i", "n"], ["1", "2"]]
    vocab = {token: place for place, token in enumerate([*SPECIAL, *letters(), *map("".join, merges)])}
    return tokenizer_json(
        bpe(vocab, merges),
        added_tokens=[added_token(vocab[token], token, special=True) for token in SPECIAL],
        pre_tokenizer=byte_level(cuts=True),
        post_processor=template([("<|bos|>", 0)], []),
        decoder=byte_level(cuts=True),
    )


def by_pieces(**parts: Any) -> dict[str, Any]:
    """A tokenizer.json with pieces of sentencepiece, as Llama 2 has it."""
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghinoprtx", "▁a", "th"]
    steps = [
        replace("▁", " "),
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]
    return {
        **tokenizer_json(
            bpe(
                {text: place for place, text in enumerate(texts)},
                [["▁", "a"], ["t", "h"]],
                unk_token="<unk>",
                fuse_unk=True,
                byte_fallback=True,
            ),
            added_tokens=[added_token(place, texts[place], special=True) for place in range(3)],
            normalizer={"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace(" ", "▁")]},
            post_processor=template([("<s>", 1)], []),
            decoder={"type": "Sequence", "decoders": steps},
        ),
        **parts,
    }


def with_token(**token: Any) -> dict[str, Any]:
    document = by_bytes()
    document["added_tokens"].append({**added_token(268, "<t>", special=False), **token})
    return document


def a(content: str, **flags: Any) -> dict[str, Any]:
    token = {key: value for key, value in added_token(0, content, special=True).items() if key != "id"}
    return {**token, **flags}


FOLDERS: dict[str, dict[str, Any]] = {
    "one file": {},
    "added_tokens.json": {"added_tokens": {"<|im_start|>": 268, "<|im_end|>": 269}},
    "ids that are not the next": {"added_tokens": {"<|im_start|>": 289, "<|im_end|>": 290, "plain": 291}},
    "two tokens of one id": {"added_tokens": {"<|im_start|>": 5, "<|im_end|>": 268, "plain": 268}},
    "a token with two ids": {"config": {"added_tokens_decoder": {"300": a("<t>"), "301": a("<t>", lstrip=True)}}},
    "added_tokens_decoder": {
        "config": {
            "added_tokens_decoder": {"5": a("<|pad|>", lstrip=True), "300": a("<t>", normalized=True, special=False)}
        },
        "added_tokens": {"<q>": 301},
        "special_tokens_map": {"additional_special_tokens": ["<e1>"]},
    },
    "special_tokens_map.json": {
        "special_tokens_map": {"additional_special_tokens": ["<|im_start|>"], "bos_token": a("<B>", normalized=True)}
    },
    "listed there, with an id elsewhere": {
        "special_tokens_map": {"additional_special_tokens": ["<|im_start|>"]},
        "added_tokens": {"<|im_start|>": 268, "plain": 269},
    },
    "listed in the configuration, with an id elsewhere": {
        "config": {"additional_special_tokens": ["<|im_start|>"]},
        "added_tokens": {"<|im_start|>": 268, "plain": 269},
    },
    "both lists": {"config": {"additional_special_tokens": ["<a1>"], "extra_special_tokens": ["<e1>"]}},
    "named by the model": {
        "config": {
            "additional_special_tokens": ["<a1>"], "extra_special_tokens": {"image_token": "<img>"}, "x_token": "<foo>",
        }
    },
    "an object in the list": {
        "config": {"extra_special_tokens": [{"__type": "AddedToken", **a("<z>", lstrip=True, rstrip=True)}]}
    },
    "plain here, listed there": {"document": with_token(), "config": {"additional_special_tokens": ["<t>"]}},
    "plain here, named there": {"document": with_token(lstrip=True), "config": {"eos_token": "<t>"}},
    "an id that is not the next": {"document": with_token(id=400)},
    "two added tokens of one id": {"document": with_token(id=5)},
    "an added token of the vocabulary": {"document": with_token(content="th")},
    "a special token that strips": {"special_tokens_map": {"eos_token": a("<z>", lstrip=True, rstrip=True)}},
    "a name without a token": {"config": {"bos_token": None}},
    "tokens around a text": {"config": {"add_bos_token": False, "add_eos_token": True}},
    "no configuration": {"config": None},
}  # fmt: skip
KEPT = ("one file", "no configuration", "a name without a token", "plain here, listed there", "tokens around a text")
CLASSES = (
    "PreTrainedTokenizerFast", "LlamaTokenizerFast", "Qwen2TokenizerFast", "GPT2Tokenizer", "GPTNeoXTokenizer", "",
)  # fmt: skip
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "granite")


def make_folder(
    folder: Path,
    document: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = CONFIG,
    model_type: str = "llama",
    **files: Any,
) -> Path:
    folder.mkdir(exist_ok=True)
    written = {"config": {"model_type": model_type}, "tokenizer": document or by_bytes(), "tokenizer_config": config}
    for name, content in {**written, **files}.items():
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def resolved(folder: Path) -> ResolvedTokenizer:
    return resolve(folder, json.loads((folder / "config.json").read_text()))


def opened(found: ResolvedTokenizer) -> Tokenizer:
    content = found.content
    return Tokenizer.from_str(content.decode() if isinstance(content, bytes) else content.read_text())


def compare(folder: Path) -> ResolvedTokenizer:
    """Tokens, texts and added tokens are those of AutoTokenizer."""
    from transformers import AutoTokenizer

    theirs, found = AutoTokenizer.from_pretrained(folder), resolved(folder)
    ours = opened(found)
    listed = [json.loads(text)["added_tokens"] for text in (ours.to_str(), theirs.backend_tokenizer.to_str())]
    assert listed[0] == listed[1]
    for text in TEXTS:
        ids = theirs.encode(text)
        assert ours.encode(text).ids == ids, text
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True), text
    return found


def said(found: ResolvedTokenizer, handling: str) -> list[str]:
    return [notice.what for notice in found.notices if notice.handling == handling]


@pytest.mark.parametrize("name", FOLDERS)
def test_added_tokens_are_those_of_autotokenizer(tmp_path: Path, name: str) -> None:
    files = copy.deepcopy(FOLDERS[name])
    config = files.pop("config", {})
    found = compare(make_folder(tmp_path / "m", config=None if config is None else {**CONFIG, **config}, **files))
    assert isinstance(found.content, Path) == (name in KEPT)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_steps_of_tokenizer_json_are_believed_whatever_the_class(
    tmp_path: Path, model_type: str, name: str
) -> None:
    named = {"unk_token": "<|end|>", "pad_token": "<|pad|>", **({"tokenizer_class": name} if name else {})}
    config = {key: value for key, value in {**CONFIG, **named}.items() if name or key != "tokenizer_class"}
    folder = make_folder(tmp_path / "m", config=config, model_type=model_type)
    agree_with_the_file(folder)


@pytest.mark.parametrize(
    "config", [{}, {"legacy": True}, {"legacy": False}, {"legacy": None}, {"add_prefix_space": False}]
)
@pytest.mark.parametrize("model_type", ["llama", "mistral"])
def test_a_class_that_would_read_pieces_in_another_way_is_named(
    tmp_path: Path, model_type: str, config: dict[str, Any]
) -> None:
    folder = make_folder(tmp_path / "m", by_pieces(), {"tokenizer_class": "LlamaTokenizer", **config}, model_type)
    found = agree_with_the_file(folder)
    about_class = [what for what in said(found, "chosen") if "the class LlamaTokenizer has its own" in what]
    assert bool(about_class) == (model_type == "llama")


def test_a_file_that_is_as_its_class_has_it_is_not_rewritten(tmp_path: Path) -> None:
    document = by_pieces(normalizer=None, pre_tokenizer=metaspace("first"))
    found = compare(make_folder(tmp_path / "m", document, {"tokenizer_class": "LlamaTokenizer", "legacy": False}))
    assert isinstance(found.content, Path) and found.notices == ()


def test_saving_with_transformers_makes_the_file_that_the_class_means(tmp_path: Path) -> None:
    """The way out that the notice gives."""
    from transformers import AutoTokenizer

    config = {**CONFIG, "tokenizer_class": "Qwen2Tokenizer", "unk_token": "<|end|>", "pad_token": "<|pad|>"}
    folder = make_folder(tmp_path / "m", None, config, "qwen2")
    assert said(resolved(folder), "chosen")
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    assert not said(compare(folder), "chosen")


def agree_with_the_file(folder: Path) -> ResolvedTokenizer:
    """Tokens are those of tokenizer.json, as `tokenizers` reads it."""
    found, theirs = resolved(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    ours = opened(found)
    for text in TEXTS:
        assert ours.encode(text).ids == theirs.encode(text).ids, text
    return found


def test_notices_say_what_was_chosen_with_an_example(tmp_path: Path) -> None:
    files = FOLDERS["ids that are not the next"]
    found = resolved(make_folder(tmp_path / "a", **files))
    assert said(found, "chosen") == [
        "added_tokens.json gives the token '<|im_start|>' the id 289, and it has 268, as in transformers 5, and so "
        "with 2 tokens more"
    ]
    assert said(found, "rewritten") == [
        "3 tokens of other files, such as '<|im_start|>' with the id 268, put into tokenizer.json"
    ]
    found = resolved(make_folder(tmp_path / "b", **FOLDERS["two tokens of one id"]))
    assert len(said(found, "left out")) == 2 and "gives the id 5 to '<|im_start|>'" in said(found, "left out")[1]
    found = resolved(make_folder(tmp_path / "c", with_token(), {**CONFIG, "extra_special_tokens": ["<t>"]}))
    assert "'<t>' is listed as special" in said(found, "has no effect")[0]
    found = resolved(make_folder(tmp_path / "d", config={**CONFIG, "add_bos_token": False, "add_eos_token": True}))
    assert [what.split(";")[0] for what in said(found, "has no effect")] == [
        "tokenizer_config.json says add_bos_token = false, and tokenizer.json puts '<|bos|>' before a text",
        "tokenizer_config.json says add_eos_token = true, and tokenizer.json puts no token behind a text",
    ]
    assert resolved(make_folder(tmp_path / "e")).notices == ()


def beside(folder: Path, name: str, content: str | bytes) -> tuple[Notice, ...]:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return resolved(folder).notices


def test_a_second_tokenizer_is_named_if_it_says_something_else(tmp_path: Path) -> None:
    folder, document = make_folder(tmp_path / "m"), by_bytes()
    vocab = document["model"]["vocab"]
    merges = "#version: 0.2\n" + "".join(f"{' '.join(pair)}\n" for pair in document["model"]["merges"])
    assert beside(folder, "vocab.json", json.dumps(vocab)) == beside(folder, "merges.txt", merges) == ()
    (notice,) = beside(folder, "vocab.json", json.dumps({**vocab, "th": 267, "other": 268}))
    assert notice.handling == "left out" and notice.what.startswith(
        "vocab.json says something else than tokenizer.json of 2 of its 269 tokens, such as 'th' (id 267; "
        "tokenizer.json has the id 262)"
    )
    beside(folder, "vocab.json", json.dumps(vocab))
    (notice,) = beside(folder, "merges.txt", merges.replace("t h\n", ""))
    assert "merges.txt has 5 merges, and tokenizer.json 6 others" in notice.what
    beside(folder, "merges.txt", merges)
    (notice,) = beside(folder, "tokenizer.model", b"nonsense")
    assert "tokenizer.model cannot be read" in notice.what and "remove tokenizer.model" in notice.cure


def test_a_model_of_sentencepiece_beside_is_compared(tmp_path: Path) -> None:
    sentencepiece_model_pb2 = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    folder = make_folder(tmp_path / "m", by_pieces(), {"tokenizer_class": "PreTrainedTokenizerFast"})
    model = sentencepiece_model_pb2.ModelProto()
    for text, place in by_pieces()["model"]["vocab"].items():
        kind = 2 if place == 0 else 3 if place < 3 else 6 if text.startswith("<0x") else 1
        model.pieces.add(piece=text, score=-place, type=kind)
    model.trainer_spec.model_type, model.trainer_spec.byte_fallback = 2, True
    assert beside(folder, "tokenizer.model", model.SerializeToString()) == ()
    model.pieces[-1].piece = "he"
    (notice,) = beside(folder, "tokenizer.model", model.SerializeToString())
    assert "of 1 of its 274 tokens, such as 'he' (id 276; tokenizer.json has no such token)" in notice.what


@pytest.mark.parametrize(
    "config", [{}, {"pad_token": "<new>"}, {"unk_token": None}, {"bos_token": "<b>", "eos_token": None}]
)
def test_tokens_of_the_class_that_the_vocabulary_lacks_get_ids_behind_it(
    config: Mapping[str, Any], tmp_path: Path
) -> None:
    document = by_bytes()
    assert "<|endoftext|>" not in document["model"]["vocab"]
    document["pre_tokenizer"] = {**document["pre_tokenizer"], "use_regex": True}
    folder = make_folder(tmp_path, document, {"tokenizer_class": "GPT2Tokenizer", **config}, "gpt2")
    found = compare(folder)
    assert "<|endoftext|>" in opened(found).get_vocab()
    assert any("put into tokenizer.json" in what for what in said(found, "rewritten"))


@pytest.mark.parametrize("name", ["Qwen3_5Tokenizer", "CohereTokenizer"])
def test_a_class_that_would_read_the_file_otherwise_is_named(name: str, tmp_path: Path) -> None:
    found = resolved(make_folder(tmp_path, by_bytes(), {"tokenizer_class": name}))
    assert any(f"the class {name} has its own" in what for what in said(found, "chosen"))
