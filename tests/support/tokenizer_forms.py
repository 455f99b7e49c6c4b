"""The forms of tokenizer.json that popular families use, each with a small vocabulary trained on awkward texts."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from drupe_tokenization import awkward_texts

Form = dict[str, Any]
SPECIAL = ["<s>", "</s>", "<|user|>", "<|end|>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
MARK = "\u2581"
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = (
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)  # fmt: skip
QWEN2 = LLAMA3.replace("{1,3}", "")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT4O = TEKKEN.replace(f"{LOWER}+|", f"{LOWER}+{CONTRACTIONS}?|").replace(f"{LOWER}*|", f"{LOWER}*{CONTRACTIONS}?|")
CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _corpus() -> list[str]:
    return awkward_texts() * 2


def _split(expression: str) -> Any:
    return pre_tokenizers.Split(Regex(expression), "isolated")


def _bytes(regex: bool = False, prefix: bool = False) -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)


def byte_level(*steps: Any, normalizer: Any = None, **model: Any) -> Form:
    """A byte-level encoding with these pre-tokenizers. Its merges are texts, as in files before tokenizers 0.20."""
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(steps)) if len(steps) > 1 else steps[0]
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(_corpus(), trainer)
    return _with_texts(json.loads(tokenizer.to_str()))


def marked(scheme: str | None, *, legacy: bool = False, gemma: bool = False) -> Form:
    """An encoding with word marks, as sentencepiece's: byte fallback, no piece across letters, digits and signs."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    classes = r"\u2581?\p{L}+|\u2581?[^\p{L}\p{N}\u2581]+|\p{N}|\u2581+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(MARK, "always"), _split(classes.replace(r"\u2581", MARK))]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=1100, special_tokens=["<unk>", *SPECIAL, *BYTES], limit_alphabet=150, show_progress=False
    )
    words = [" ".join(text.split()) for text in _corpus()]  # as Llama 2 has tabs and line ends: as bytes
    tokenizer.train_from_iterator(words, trainer)
    form: Form = json.loads(tokenizer.to_str())
    form["added_tokens"] = [token for token in form["added_tokens"] if token["content"] not in BYTES]
    vocabulary, merges = form["model"]["vocab"], form["model"]["merges"]
    for left, right in ((MARK, MARK), (MARK * 2, MARK * 2), ("'", ","), (",", ","), (",", "\r"), ("'", ",\r")):
        for piece in (left, right, left + right):
            vocabulary.setdefault(piece, len(vocabulary))
        if [left, right] not in merges:
            merges.append([left, right])
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
    form["pre_tokenizer"] = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": False}
    if legacy:
        first = {"type": "Prepend", "prepend": MARK}
        form |= {"normalizer": {"type": "Sequence", "normalizers": [first, spaces]}, "pre_tokenizer": None}
    if gemma:
        cut = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
        form |= {"normalizer": spaces, "pre_tokenizer": cut}
    strip = [] if scheme == "never" or gemma else [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    back = {"type": "Replace", "pattern": {"String": MARK}, "content": " "}
    form["decoder"] = {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]}
    return _with_texts(form)


def unigram() -> Form:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=700, special_tokens=["<unk>", *SPECIAL], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    form: Form = json.loads(tokenizer.to_str())
    return form


def word_piece() -> Form:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=["[UNK]", "[CLS]"], show_progress=False)
    tokenizer.train_from_iterator(_corpus(), trainer)
    form: Form = json.loads(tokenizer.to_str())
    return form


def word_level() -> Form:
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(vocab_size=500, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(_corpus(), trainer)
    form: Form = json.loads(tokenizer.to_str())
    return form


def with_rule(form: Form, **rule: bool) -> Form:
    """The form with an added token "<mask>" that has a rule such as `lstrip`."""
    form["model"]["vocab"]["<mask>"] = number = len(form["model"]["vocab"])
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    form["added_tokens"].append({"id": number, "content": "<mask>", **plain, **rule})
    return form


def with_beginning(form: Form, token: str = "<s>") -> Form:
    """The form with a post-processor that puts a token before each text."""
    number = form["model"]["vocab"][token]
    pieces = [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    form["post_processor"] = {
        "type": "TemplateProcessing", "single": pieces, "pair": [*pieces, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }  # fmt: skip
    return form


def _with_texts(form: Form) -> Form:
    form["model"]["merges"] = [f"{left} {right}" for left, right in form["model"]["merges"]]
    return form


MAKERS: dict[str, tuple[str, Callable[[], Form]]] = {
    "gpt2": ("GPT2Tokenizer", lambda: byte_level(_bytes(regex=True))),
    "gpt2 as llama": ("LlamaTokenizerFast", lambda: byte_level(_bytes(regex=True))),
    "gpt2 with prefix space": ("GPT2Tokenizer", lambda: byte_level(_bytes(regex=True, prefix=True))),
    "neox": ("GPTNeoXTokenizer", lambda: byte_level(_bytes(regex=True), normalizer=normalizers.NFC())),
    "llama3": ("PreTrainedTokenizerFast", lambda: with_beginning(
        byte_level(_split(LLAMA3), _bytes(), ignore_merges=True))),
    "qwen2": ("Qwen2Tokenizer", lambda: byte_level(_split(QWEN2), _bytes(), normalizer=normalizers.NFC())),
    "tekken": ("PreTrainedTokenizerFast", lambda: byte_level(_split(TEKKEN), _bytes(), ignore_merges=True)),
    "phi4": ("GPT2Tokenizer", lambda: byte_level(_split(GPT4O), _bytes())),
    "smollm": ("GPT2Tokenizer", lambda: byte_level(pre_tokenizers.Digits(True), _bytes(regex=True))),
    "split before bytes": ("PreTrainedTokenizerFast", lambda: byte_level(_split(r"\p{N}"), _bytes(regex=True))),
    "falcon": ("PreTrainedTokenizerFast", lambda: byte_level(
        pre_tokenizers.Punctuation("contiguous"), _bytes(regex=True), pre_tokenizers.Digits(False),
        _split("[0-9][0-9][0-9]"))),
    "deepseek3": ("LlamaTokenizerFast", lambda: byte_level(
        _split(r"\p{N}{1,3}"), _split(CJK), _split(DEEPSEEK3), _bytes())),
    "deepseek coder": ("LlamaTokenizerFast", lambda: byte_level(
        _split(r"[\r\n]"), _split(r"\s?\p{L}+"), _split(r"\s?\p{P}+"), _split("[\u4e00-\u9fa5\uac00-\ud7ff]+"),
        pre_tokenizers.Digits(True), _bytes())),
    "whitespace split": ("PreTrainedTokenizerFast", lambda: byte_level(
        pre_tokenizers.WhitespaceSplit(), _bytes(regex=True))),
    "llama2": ("LlamaTokenizer", lambda: with_beginning(marked(None, legacy=True))),
    "phi3": ("LlamaTokenizer", lambda: with_rule(marked(None, legacy=True), rstrip=True)),
    "mistral3": ("LlamaTokenizer", lambda: with_beginning(marked("first"))),
    "always": ("LlamaTokenizer", lambda: marked("always")),
    "never": ("LlamaTokenizer", lambda: marked("never")),
    "gemma": ("GemmaTokenizer", lambda: marked(None, gemma=True)),
    "lstrip": ("GPT2Tokenizer", lambda: with_rule(byte_level(_bytes(regex=True)), lstrip=True)),
    "rstrip": ("GPT2Tokenizer", lambda: with_rule(byte_level(_bytes(regex=True)), rstrip=True)),
    "single word": ("GPT2Tokenizer", lambda: with_rule(byte_level(_bytes(regex=True)), single_word=True)),
    "normalized": ("GPT2Tokenizer", lambda: with_rule(byte_level(_bytes(regex=True)), normalized=True)),
    "nfkc": ("GPT2Tokenizer", lambda: byte_level(_bytes(regex=True), normalizer=normalizers.NFKC())),
    "lowercase": ("GPT2Tokenizer", lambda: byte_level(_bytes(regex=True), normalizer=normalizers.Lowercase())),
    "strip": ("GPT2Tokenizer", lambda: byte_level(_bytes(regex=True), normalizer=normalizers.Strip())),
    "replace": ("GPT2Tokenizer", lambda: byte_level(_bytes(regex=True), normalizer=normalizers.Replace("``", '"'))),
    "t5": ("T5Tokenizer", unigram),
    "camembert": ("CamembertTokenizer", unigram),
    "bert": ("BertTokenizer", word_piece),
    "bert as generic": ("PreTrainedTokenizerFast", word_piece),
    "word level": ("PreTrainedTokenizerFast", word_level),
}  # fmt: skip
"""For each form the class that tokenizer_config.json names, and what makes it."""


@functools.cache
def tokenizer_files(name: str) -> dict[str, bytes]:
    """tokenizer.json and tokenizer_config.json of a form."""
    kind, make = MAKERS[name]
    config = {"tokenizer_class": kind, "bos_token": "<s>", "eos_token": "</s>"}
    return {
        "tokenizer.json": json.dumps(make(), ensure_ascii=False).encode(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }
