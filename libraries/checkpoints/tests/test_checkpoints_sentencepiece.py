"""A model of sentencepiece becomes a tokenizer.json that gives the tokens of sentencepiece."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from drupe.api import ModelError, replace
from drupe_checkpoints.tokenizer.families import OTHER_IDS, numbered
from drupe_checkpoints.tokenizer.from_sentencepiece import Reading, converted
from drupe_checkpoints.tokenizer.merges import merges_by_score
from drupe_checkpoints.tokenizer.resolving import resolve
from drupe_checkpoints.tokenizer.sentencepiece_file import (
    BPE,
    CONTROL,
    NORMAL,
    UNIGRAM,
    UNKNOWN,
    UNUSED,
    WORD,
    Pieces,
    read_pieces,
)
from drupe_checkpoints.tokenizer.settings import Settings
from drupe_tokenization import awkward_texts

spm = pytest.importorskip("sentencepiece")

SPECIAL = ("<unk>", "<s>", "</s>")
TEXTS = [
    *(text for text in awkward_texts() if not any(token in text for token in SPECIAL)),
    "<0x41> <0x0A>", "▁", "▁a", "a▁ ", "a ▁ b", "\u0301\u2581", "u\u0308\u0301", "\u00fc\u0301", "a\u0300\u0323", "ﾊﾟ",
    *(" " * count for count in range(1, 40)), *("a" + " " * count + "b\n" + "\n" * count for count in range(1, 20)),
]  # fmt: skip
TRAINING = [
    "The quick brown fox jumps over the lazy dog, and then the other dog sleeps in the sun.",
    "    import os\n    return [value for value in values if value > 100]",
    "日本語のテキスト 中文字符测试 한국어 텍스트 naïve café Tiếng Việt русский ελληνικά 👍 0123456789 [INST] ﬁ",
    "It's 12,345.67 or 3.14; don't, won't, can't. HTTP/1.1 200 OK <a href='x'>y</a>",
]
PLAIN = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
SYMBOLS = ["<sym>", "[INST]", "  ", "the end"]
FORMS: dict[str, dict[str, Any]] = {
    "as Llama's": {**PLAIN, "byte_fallback": True, "split_digits": True, "character_coverage": 0.98},
    "as Gemma's": {**PLAIN, "byte_fallback": True, "add_dummy_prefix": False},
    "with runs of spaces": {**PLAIN, "allow_whitespace_only_pieces": True},
    "as sentencepiece has it": {},
    "normalized, with bytes": {"byte_fallback": True, "character_coverage": 0.98},
    "without case": {"normalization_rule_name": "nfkc_cf"},
    "no space before a text": {"add_dummy_prefix": False},
    "pieces across words": {"split_by_whitespace": False, "split_by_unicode_script": False},
    "symbols of the user": {**PLAIN, "user_defined_symbols": SYMBOLS, "byte_fallback": True},
    "symbols, normalized": {"user_defined_symbols": ["<sym>", "[INST]"]},
    "normalized, all spaces": {"remove_extra_whitespaces": False},
    "control symbols": {"control_symbols": ["<c1>", "<c2>"]},
}
WITH_SYMBOLS = ["a <sym> b", "<sym>", "<sym>x", "x<sym>", " <sym> [INST]", "[INST]<sym>  \n", "the end <sym>the end"]


@pytest.fixture(scope="session")
def train(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Trains a small model, each only once."""
    made: dict[str, Path] = {}

    def train(kind: str, **options: Any) -> Path:
        key = json.dumps([kind, options])
        if key not in made:
            written = io.BytesIO()
            size = 600 if options.get("byte_fallback") else 360
            settings = {"vocab_size": size, "hard_vocab_limit": False, "minloglevel": 2, **options}
            if kind == "bpe":
                del settings["hard_vocab_limit"]
            spm.SentencePieceTrainer.train(
                sentence_iterator=iter(TRAINING * 3), model_writer=written, model_type=kind, **settings
            )
            made[key] = tmp_path_factory.mktemp("model") / "tokenizer.model"
            made[key].write_bytes(written.getvalue())
        return made[key]

    return train


def opened(document: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(document, ensure_ascii=False))


AS_ONE = Reading()


def differing(
    path: Path, texts: list[str], reading: Reading = AS_ONE, *, decoded: bool = True
) -> list[tuple[str, list[str], list[str]]]:
    """The texts that get other tokens, or, if `decoded`, whose tokens are decoded to another text.

    Where the same pieces in another order have the same score, sentencepiece decides by how it rounds sums.
    """
    theirs, pieces = spm.SentencePieceProcessor(model_file=str(path)), read_pieces(path)
    ours = opened(converted(pieces, reading, ""))
    wrong = []
    for text in texts:
        expected, ids = theirs.encode(text), ours.encode(text, add_special_tokens=False).ids
        unknown = theirs.unk_id() in expected  # sentencepiece writes " ⁇ " for it
        tied = ids != expected and sorted(ids) == sorted(expected) and pieces.algorithm == UNIGRAM
        if (ids != expected and not tied) or (decoded and not unknown and ours.decode(ids) != theirs.decode(expected)):
            wrong.append((text, theirs.id_to_piece(expected), theirs.id_to_piece(ids)))
    return wrong


@pytest.mark.parametrize("each_part", [True, False], ids=["legacy", "not legacy"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_tokens_and_texts_are_those_of_sentencepiece(
    train: Callable[..., Path], kind: str, form: str, each_part: bool
) -> None:
    path = train(kind, **FORMS[form])
    texts = [*TEXTS, *WITH_SYMBOLS] if "symbols" in form else TEXTS
    assert differing(path, texts, Reading(each_part=each_part)) == []


@pytest.mark.parametrize("symbols", [[], ["<sym>"]], ids=["no symbols", "symbols"])
@pytest.mark.parametrize("form", ["as Llama's", "as sentencepiece has it"])
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_control_symbols_that_normalization_makes_are_not_found(
    train: Callable[..., Path], kind: str, form: str, symbols: list[str]
) -> None:
    """Of spaces, and of other forms of characters: sentencepiece finds no control symbol in a text."""
    controls = ["<▁c>", "▁ctl", "the▁end", "c▁d", "<c1>"]
    path = train(kind, **FORMS[form], control_symbols=controls, user_defined_symbols=symbols)
    made = [
        "x < c> y",
        "ctl",
        "a ctl b",
        "the end",
        "go the end now",
        "a c d",
        "\uff1cc1\uff1e",
        "\uff1cs\uff1e a",
        "a\uff1c/s\uff1e",
    ]
    made += ["<sym>\uff1cs\uff1e<sym>", "<sym> ctl", "the end<sym>", "<sym>c d<sym>"]
    texts = [text for text in TEXTS if not any(each in text for each in controls)]
    assert differing(path, [*made, *texts]) == []


def test_a_model_of_characters_is_converted(train: Callable[..., Path]) -> None:
    assert differing(train("char", **FORMS["as Llama's"]), TEXTS) == []


CONTROLS = [
    form.format(chr(code))
    for code in (*range(0x20), *range(0x7F, 0xA1), 0xAD, 0x180E, 0x200B, 0x2028, 0x2029, 0x3000, 0xFEFF, 0xE0001)
    for form in ("{}", "a{}", "{}a", "a{}b", " {}", "{} ", "a {}", "{} b", "a{}\n")
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_model_with_spaces_behind_words_is_converted(train: Callable[..., Path], kind: str, form: str) -> None:
    path = train(kind, **FORMS[form], treat_whitespace_as_suffix=True)
    texts = [*TEXTS, *CONTROLS, *WITH_SYMBOLS] if "symbols" in form else [*TEXTS, *CONTROLS]
    assert differing(path, texts) == []


@pytest.mark.parametrize("form", ["as Llama's", "as sentencepiece has it", "normalized, all spaces"])
def test_control_characters_are_read_as_sentencepiece_reads_them(train: Callable[..., Path], form: str) -> None:
    assert differing(train("bpe", **FORMS[form]), CONTROLS) == []


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_legacy_decides_how_text_behind_a_special_token_is_read(train: Callable[..., Path], kind: str) -> None:
    path = train(kind, **FORMS["as Llama's"])
    theirs = spm.SentencePieceProcessor(model_file=str(path))
    for each_part in (True, False):
        ours = opened(converted(read_pieces(path), Reading(each_part=each_part), ""))
        for text in ("the dog</s>the sun", "a</s> b", "</s>x", "  </s>  y"):
            before, behind = text.split("</s>")
            rest = theirs.encode(behind)
            if not each_part:  # the mark that sentencepiece puts before a text is not there
                rest = opened(converted(read_pieces(path), Reading(prefix=False), "")).encode(behind).ids
            assert ours.encode(text).ids == [*theirs.encode(before), 2, *rest], text


def test_runs_of_spaces_of_one_score_grow_from_the_left() -> None:
    """As in the vocabularies of Llama 2 and Mistral, where all of them have the score of -1e9."""
    runs = ["▁" * length for length in (2, 4, 8, 5, 16, 6, 12, 13, 10, 14, 3, 9, 7, 11)]
    texts = ["<unk>", "<s>", "</s>", "a", "b", *runs, "▁", "▁a"]
    pieces = Pieces(
        Path("tokenizer.model"),
        texts,
        [0.0, 0.0, 0.0, -9.0, -10.0, *[-1e9] * (len(runs) + 1), -1.0],
        [UNKNOWN, CONTROL, CONTROL, *[NORMAL] * (len(texts) - 3)],
        algorithm=BPE,
        fewer_spaces=False,
    )
    ours = opened(converted(pieces, Reading(), ""))
    theirs = spm.SentencePieceProcessor(model_proto=written(pieces))
    for count in range(80):
        for text in (" " * count, " " * count + "a", "b" + " " * count + "ab"):
            assert ours.encode(text).ids == theirs.encode(text), text


def written(pieces: Pieces) -> bytes:
    """The file of sentencepiece that has these pieces."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    for text, score, kind in zip(pieces.texts, pieces.scores, pieces.kinds, strict=True):
        model.pieces.add(piece=text, score=score, type=kind)
    model.trainer_spec.model_type = pieces.algorithm
    model.trainer_spec.byte_fallback = pieces.byte_fallback
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.remove_extra_whitespaces = pieces.fewer_spaces
    return bytes(model.SerializeToString())


def small(texts: str, scores: list[float] | None = None, **changed: Any) -> Pieces:
    listed = ["<unk>", *texts.split()]
    own = scores or [-float(place) for place in range(len(listed) - 1)]
    kinds = [UNKNOWN, *[NORMAL] * (len(listed) - 1)]
    return replace(Pieces(Path("tokenizer.model"), listed, [0.0, *own], kinds, algorithm=BPE), **changed)


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        (small("ab bc a b c", [0, 0, -1, -2, -3]), "one score that compete, such as 'ab' and 'bc'"),
        (small("ab a c"), "'ab', and no piece for one of its characters"),
        (replace(small("ab a b"), kinds=[UNKNOWN, UNUSED, NORMAL, NORMAL]), "'ab', which is split again"),
        (small("a b", algorithm=WORD), "splits text into whole words"),
    ],
)
def test_what_tokenizer_json_cannot_say_is_refused(pieces: Pieces, reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        converted(pieces, Reading(), "the way out")
    words = "put a tokenizer.json that was made for this model"
    assert caught.value.cure is not None
    assert caught.value.cure.startswith(words if pieces.algorithm == WORD else "the way out")


def test_rules_of_normalization_for_several_characters_are_refused(tmp_path: Path, train: Callable[..., Path]) -> None:
    rules = tmp_path / "rules.tsv"
    rules.write_text("61 62\t78\n79\t7A\n")  # "ab" to "x", "y" to "z"
    path = train("bpe", normalization_rule_tsv=str(rules), remove_extra_whitespaces=False)
    with pytest.raises(ModelError, match="normalizes texts of several characters, such as 'ab' to 'x'"):
        converted(read_pieces(path), Reading(), "")
    rules.write_text("79\t7A\n")
    assert differing(train("bpe", normalization_rule_tsv=str(rules), vocab_size=350), TEXTS) == []


@pytest.mark.parametrize("suffix", [False, True], ids=["spaces before", "spaces behind"])
@pytest.mark.parametrize("form", ["as Llama's", "as sentencepiece has it", "without case", "normalized, all spaces"])
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_symbols_of_the_user_are_found_as_they_are_written(
    train: Callable[..., Path], kind: str, form: str, suffix: bool
) -> None:
    symbols = ["<SYM>", "▁▁", "▁the", "ﬁ", "a▁b"]
    path = train(kind, **FORMS[form], user_defined_symbols=symbols, treat_whitespace_as_suffix=suffix)
    texts = [
        "<SYM> <sym>",
        "x<SYM>",
        "▁▁",
        "a ▁▁ b",
        "a▁▁▁b▁▁",
        "▁the the▁the",
        " ▁the",
        "the the  the",
        "ﬁn",
        "A▁B a▁b",
    ]
    assert differing(path, [*TEXTS, *texts], decoded=False) == []


@pytest.mark.parametrize("cut", [1, 2, 5000, -1])
def test_a_file_that_is_cut_short_is_an_error(train: Callable[..., Path], tmp_path: Path, cut: int) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(train("bpe").read_bytes()[:cut])
    with pytest.raises(ModelError, match="not a sound model of sentencepiece") as caught:
        read_pieces(path)
    assert caught.value.where == str(path) and caught.value.cure


@pytest.mark.parametrize(
    "content",
    [
        b"\x0a\x05\x0a\x03abc", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0a\x02\x18\x01", b"\x0b",
        b"\x0a\x07\x0a\x01a\x15" + struct.pack("<f", 1.0)[:3],
    ],
)  # fmt: skip
def test_a_file_of_nonsense_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(ModelError, match="not a sound model of sentencepiece"):
        read_pieces(tmp_path / "tokenizer.model")


@pytest.mark.parametrize(
    ("settings", "first", "last"),
    [
        ({}, [1], []),
        ({"add_bos_token": False, "add_eos_token": True}, [], [2]),
        ({"tokenizer_class": "T5Tokenizer"}, [], [2]),
        ({"bos_token": {"content": "</s>"}}, [2], []),
    ],
)
def test_tokens_are_put_around_a_text_by_the_files_or_the_habit_of_the_class(
    train: Callable[..., Path], tmp_path: Path, settings: dict[str, Any], first: list[int], last: list[int]
) -> None:
    path = train("bpe", **FORMS["as Llama's"])
    (tmp_path / "spiece.model").write_bytes(path.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    content = resolve(tmp_path, {"model_type": "llama"}).content
    assert isinstance(content, bytes)
    expected = spm.SentencePieceProcessor(model_file=str(path)).encode("the dog")
    assert Tokenizer.from_str(content.decode()).encode("the dog").ids == [*first, *expected, *last]


def test_what_gpt_sw3_does_to_a_text_first_is_done(train: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import GPTSw3Tokenizer

    (tmp_path / "spiece.model").write_bytes(train("bpe", **FORMS["as Llama's"]).read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPTSw3Tokenizer"}))
    content = resolve(tmp_path, {"model_type": "gpt2"}).content
    assert isinstance(content, bytes)
    ours, theirs = Tokenizer.from_str(content.decode()), GPTSw3Tokenizer(str(tmp_path / "spiece.model"))
    texts = [*TEXTS, *(f"a{chr(code)}b" for code in range(0x3100)), "a\ufffcb"]
    texts = [text for text in texts if text not in theirs.all_special_tokens]
    assert [text for text in texts if ours.encode(text).ids != theirs.encode(text)] == []


@pytest.mark.parametrize("name", sorted(OTHER_IDS))
def test_a_class_that_changes_the_pieces_is_refused_with_the_command_that_transformers_has_for_it(
    train: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    import transformers

    (tmp_path / "spiece.model").write_bytes(train("unigram").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    with pytest.raises(ModelError, match=f"class {name} changes what") as caught:
        resolve(tmp_path, {"model_type": "llama"})
    makes_one = hasattr(getattr(transformers, name, None), "backend_tokenizer")
    assert ("backend_tokenizer.save" in str(caught.value.cure)) == makes_one


def test_names_of_added_tokens_decoder_replace_those_of_pieces(train: Callable[..., Path]) -> None:
    pieces = read_pieces(train("bpe", control_symbols=["<c1>", "<c2>"]))
    place = pieces.texts.index("<c1>")
    config = {"added_tokens_decoder": {str(place): {"content": "<tool>", "special": True}}}
    assert numbered(pieces, Settings(Path(), config)).texts[place] == "<tool>"


def test_fairseq_numbers_pieces_in_its_own_way(train: Callable[..., Path]) -> None:
    pieces = read_pieces(train("unigram"))
    shifted = numbered(pieces, Settings(Path(), {"tokenizer_class": "XLMRobertaTokenizer"}))
    assert shifted.texts[:4] == ["<s>", "<pad>", "</s>", "<unk>"] and shifted.texts[-1] == "<mask>"
    assert shifted.texts[4:-1] == pieces.texts[3:] and shifted.unk == 3


def test_the_pair_of_the_higher_score_is_first() -> None:
    scores = {"a": -5.0, "b": -6.0, "ab": -1.0, "abb": -2.0, "bb": -3.0}
    assert merges_by_score(scores) == [("a", "b"), ("ab", "b"), ("a", "bb"), ("b", "b")]
