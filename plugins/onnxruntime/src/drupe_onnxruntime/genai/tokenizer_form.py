"""A tokenizer in the form that onnxruntime-genai reads as it is meant.

Its tokenizer (onnxruntime-extensions) takes some parts of tokenizer.json in its own way. In onnxruntime-genai 0.18:

- merges as texts lose their carriage returns, and the first one must not begin with "#": pairs are read as they are;
- of the pre-tokenizers only `Split` is read, as isolating, and only some regular expressions are known in full Unicode.
  Without one, the expression of GPT-2 holds, or for word marks (U+2581) and the class LlamaTokenizer that of Llama 3;
- a tokenizer with word marks gets one before each stretch of text if its decoder strips a space, and none otherwise;
- the post-processor is not read but guessed from the names of the special tokens;
- `lstrip` and `single_word` of added tokens are ignored, and so are normalizers.

Where a tokenizer can be written so that it is read as meant, or nearer to that, it is written into a file of its own,
and tokenizer_module.json, which only onnxruntime-genai reads, names it. tokenizer.json stays as it is for everybody.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drupe_tokenization import TokenizerDocument

VOCABULARY = "tokenizer.json"
OWN = "genai_tokenizer.json"
MODULE = "tokenizer_module.json"
UNIGRAM_CLASSES = frozenset(
    {"ChatGLMTokenizer", "DebertaV2Tokenizer", "MarianTokenizer", "T5Tokenizer", "XLMRobertaTokenizer"}
)
MARK = "\u2581"

GPT2 = (r"'s|'t|'re|'ve|'m|'ll|'d", r" ?\p{L}+| ?\p{N}+", r" ?[^\s\p{L}\p{N}]+", r"\s+(?!\S)|\s+")
WORDS = (
    r"[^\r\n\p{L}\p{N}]?\p{L}+", r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)|\s+",
)  # fmt: skip
"""Where byte-pair encodings with word marks are cut. Their pieces hardly ever cross these places."""
KNOWN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*", r"[^\r\n\p{L}\p{N}]?\p{L}+", r"'s|'t|'re|'ve|'m|'ll|'d",
    r" ?[^\s\p{L}\p{N}]+", r" ?\p{L}+| ?\p{N}+", r"[\p{L}]+|[\p{N}]", r"[^\s\p{L}\p{N}]+", r"\s+(?!\S)|\s+",
    r"\p{N}{1,3}", r"\s*[\r\n]+", r"\p{N}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+""", r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
    r" ?[\p{P}\p{S}]+[\r\n]*",
)  # fmt: skip
"""The alternatives that the runtime has code for, in the order in which it looks for them."""
_RETURN = re.compile(rb"(?<!\\)(?:\\\\)*\\r")
"""A carriage return in a JSON string: an even number of backslashes before it stands for themselves."""
NEAREST: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"[\r\n]", (r"\s*[\r\n]+",)),
    (r"\s?[A-Za-z", GPT2[1:2]),
    (r"\s?\p{L}+", GPT2[1:2]),
    (r"\s?[!-/", GPT2[2:3]),
    (r"\s?\p{P}+", GPT2[2:3]),
    (r"\s+$", GPT2[3:]),
    ("[\u4e00-\u9fa5", ("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",)),
    (r"[0-9][0-9][0-9]", (r"\p{N}{1,3}",)),
)
"""Other expressions, by how they begin, and the known ones that come nearest."""
BEGIN_BY_DEFAULT = ("Llama", "Phi3", "InternLM2", "Gemma", "CodeLlama", "Mistral")
"""Classes whose tokenizers put the beginning of sequence before a text if nothing else is said."""


@dataclass
class Form:
    """What the runtime reads instead of the checkpoint's files.

    document: its own tokenizer; None where it reads tokenizer.json. module: settings that go before those in
    tokenizer_config.json. changes: what is different, in words.
    """

    document: TokenizerDocument | None = None
    module: dict[str, Any] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)

    def files(self) -> dict[str, Path | bytes]:
        files: dict[str, Path | bytes] = {}
        module = dict(self.module)
        if self.document is not None:
            files[OWN] = self.document.write()
            module["tiktoken_file"] = OWN
        if module:
            files[MODULE] = (json.dumps(module, indent=2, ensure_ascii=False) + "\n").encode()
        return files


def form_for(document: TokenizerDocument, config: Mapping[str, Any]) -> Form:
    """The form for a tokenizer. config: the object in tokenizer_config.json."""
    if document.kind == "Unigram":
        return _unigram(document, config)
    if document.kind != "BPE":
        return Form(module={"tokenizer_class": document.kind})  # refused by its name, and not read as something else
    form = Form()
    changed = document
    for rewrite in REWRITES:
        changed, change, module = rewrite(changed, config)
        form.module.update(module)
        form.changes += [change] if change else []
    form.document = None if changed is document else changed
    return form


Rewritten = tuple[TokenizerDocument, str, dict[str, Any]]


def _with_pairs(document: TokenizerDocument, config: Mapping[str, Any]) -> Rewritten:
    """Merges as pairs, where texts would be misread."""
    merges = document.merges or b"[]"
    first = merges[1:200].lstrip()
    if not first.startswith(b'"') or not (_RETURN.search(merges) or first.startswith(b'"#')):
        return document, "", {}
    written = json.dumps(_pairs(document), ensure_ascii=False, separators=(",", ":")).encode()
    rewritten = TokenizerDocument(document.settings, document.vocabulary, written)
    return rewritten, "the merges are pairs", {}


def _pairs(document: TokenizerDocument) -> list[list[str]]:
    merges = json.loads(document.merges or b"[]")
    return [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in merges]


def _with_known_splits(document: TokenizerDocument, config: Mapping[str, Any]) -> Rewritten:
    """The pre-tokenizers of a byte-level encoding as splits that the runtime knows."""
    steps = document.steps("pre_tokenizer")
    if _has_word_marks(document) or not any(step.get("type") == "ByteLevel" for step in steps):
        return document, "", {}
    read = [_expression(step) for step in steps if step.get("type") == "Split"]
    default = "|".join(GPT2) if _class_name(config) != "Llama" else ""
    meant = [expression for step in steps for expression in _splits(step)]
    if meant == (read or [default]) or not meant:
        return document, "", {}
    splits = [
        {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
        for expression in meant
    ]
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    rewritten = document.changed(pre_tokenizer={"type": "Sequence", "pretokenizers": [*splits, last]})
    return rewritten, "the pre-tokenizers are regular expressions that it knows", {}


def _splits(step: Mapping[str, Any]) -> list[str]:
    """The expressions that split as a pre-tokenizer does, as far as the runtime knows some."""
    kind = step.get("type")
    if kind == "ByteLevel":
        return ["|".join(GPT2)] if step.get("use_regex", True) else []
    if kind == "Digits":
        return [r"\p{N}"] if step.get("individual_digits") else []
    if kind == "Punctuation":
        return [r"[^\s\p{L}\p{N}]+"] if step.get("behavior") == "Contiguous" else []
    if kind != "Split":
        return []
    expression = _expression(step)
    if not expression or _known(expression):
        return [expression] if expression else []
    nearest = next((found for beginning, found in NEAREST if expression.startswith(beginning)), (expression,))
    return ["|".join(nearest)]


def _expression(step: Mapping[str, Any]) -> str:
    pattern = step.get("pattern")
    return str(pattern.get("Regex", "")) if isinstance(pattern, Mapping) else ""


def _known(expression: str) -> bool:
    """Whether the runtime has code for each alternative of a regular expression."""
    rest = f"|{expression}|"
    for alternative in KNOWN:
        rest = rest.replace(f"|{alternative}|", "|")
    return rest == "|"


def _has_word_marks(document: TokenizerDocument) -> bool:
    """Whether spaces become word marks, by a normalizer or a pre-tokenizer."""
    marks = (step.get("content") == MARK for step in document.steps("normalizer") if step.get("type") == "Replace")
    return any(marks) or any(step.get("type") == "Metaspace" for step in document.steps("pre_tokenizer"))


def _scheme(document: TokenizerDocument) -> str:
    """Where a word mark is put before a text: "each" stretch, "always" but not twice, "first" alone, or "never"."""
    for step in document.steps("normalizer"):
        if step.get("type") == "Prepend" and step.get("prepend") == MARK:
            return "each"
    for step in document.steps("pre_tokenizer"):
        if step.get("type") == "Metaspace":
            old = "always" if step.get("add_prefix_space", True) else "never"
            return str(step.get("prepend_scheme", old)).lower()
    return "never"


def _with_word_marks(document: TokenizerDocument, config: Mapping[str, Any]) -> Rewritten:
    """A tokenizer with word marks: where texts are cut, and whether a mark goes before them."""
    if not _has_word_marks(document):
        return document, "", {}
    marked = _scheme(document) != "never"
    if not marked and _is_read_whole(document) and _reads_marks(document, marked):
        return document, "", {}
    whole, module = _merges_cross_cuts(document), {}
    by_default = (
        document.settings.get("pre_tokenizer") is None or document.steps("pre_tokenizer")[0].get("type") == "Metaspace"
    )
    if by_default and not whole and _reads_marks(document, marked):
        return document, "", {}
    if whole and marked:
        module = {"tokenizer_class": "GemmaTokenizer"}
    pattern = {"String": MARK * 9} if whole and not marked else {"Regex": "|".join(WORDS)}
    decoders = [
        {"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if marked else []),
    ]  # fmt: skip
    rewritten = document.changed(
        normalizer=None,
        pre_tokenizer={"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False},
        decoder={"type": "Sequence", "decoders": decoders},
    )
    return rewritten, "the word marks are put where it puts them", module


def _is_read_whole(document: TokenizerDocument) -> bool:
    """Whether the runtime reads a text without cutting it: it does where the only pre-tokenizer splits at a text."""
    step = document.settings.get("pre_tokenizer")
    return isinstance(step, Mapping) and step.get("type") == "Split" and "String" in (step.get("pattern") or {})


def _reads_marks(document: TokenizerDocument, marked: bool) -> bool:
    """Whether the runtime sees in the decoder that there are word marks, and whether one goes before a text."""
    decoder = document.settings.get("decoder")
    steps = decoder.get("decoders", []) if isinstance(decoder, Mapping) else []
    seen = any((step.get("pattern") or {}).get("String") == MARK for step in steps)
    return seen and any(step.get("type") == "Strip" for step in steps) == marked


_UNCUT = re.compile(r"[RSP]?L+|N{1,3}|S?P+R*|S*R+|S+")
CROSSING = 0.05
"""The share of merges across a cut from which on a text is better not cut."""


def _merges_cross_cuts(document: TokenizerDocument) -> bool:
    """Whether many merges make pieces that `WORDS` would cut, such as names with digits in them."""
    pieces = ["".join(pair) for pair in _pairs(document)]
    crossing = sum(not _UNCUT.fullmatch("".join(map(_letter, piece))) for piece in pieces)
    return crossing > CROSSING * len(pieces)


def _letter(character: str) -> str:
    """The class of a character: letter, number, line end, space, other."""
    if character.isalpha():
        return "L"
    if character.isnumeric():
        return "N"
    if character in "\r\n":
        return "R"
    return "S" if character == MARK or character.isspace() else "P"


def _with_spaces_in_tokens(document: TokenizerDocument, config: Mapping[str, Any]) -> Rewritten:
    """Special tokens once more with the space beside them, where that space vanishes or is a word mark already."""
    space_behind = _has_word_marks(document) and _scheme(document) in ("always", "first")
    more = []
    for token in document.added_tokens:
        if token.get("special") and space_behind and not token.get("rstrip"):
            more.append({**token, "content": token["content"] + " "})
        if token.get("special") and token.get("lstrip"):
            more.append({**token, "content": " " + token["content"]})
    if not more:
        return document, "", {}
    rewritten = document.changed(added_tokens=[*document.added_tokens, *more])
    return rewritten, "the special tokens take a space beside them", {}


def _with_beginning(document: TokenizerDocument, config: Mapping[str, Any]) -> Rewritten:
    """The tokens before and after a text, which the post-processor tells."""
    wanted, names = _surrounding(document), _named(config)
    if wanted == _guessed(document, config) or not wanted[0] <= {names["bos"]} or not wanted[1] <= {names["eos"]}:
        return document, "", {}
    module = {"add_bos_token": bool(wanted[0]), "add_eos_token": bool(wanted[1])}
    return document.changed(post_processor=None), "the tokens around a text are named", module


def _surrounding(document: TokenizerDocument) -> tuple[set[str], set[str]]:
    """The tokens that the post-processor puts before and after a text."""
    before, after = set(), set()
    for step in document.steps("post_processor"):
        if step.get("type") in ("BertProcessing", "RobertaProcessing"):
            before.add(step["cls"][0])
            after.add(step["sep"][0])
        place = before
        for piece in step.get("single") or ():
            if "Sequence" in piece:
                place = after
            else:
                place.add(piece["SpecialToken"]["id"])
    return before, after


def _named(config: Mapping[str, Any]) -> dict[str, str]:
    """The beginning and the end of sequence by the configuration; "" where it names none."""
    entries = {name: config.get(f"{name}_token") for name in ("bos", "eos")}
    texts = {name: entry.get("content") if isinstance(entry, Mapping) else entry for name, entry in entries.items()}
    return {name: text if isinstance(text, str) else "" for name, text in texts.items()}


def _guessed(document: TokenizerDocument, config: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """The tokens that the runtime puts before and after a text, as it guesses them."""
    names, told = _named(config), {name: config.get(f"add_{name}_token") for name in ("bos", "eos")}
    adds = {name: told[name] is True for name in told}
    mentioned = json.dumps(document.settings.get("post_processor"), ensure_ascii=False)
    inside = {name: bool(text) and text in mentioned for name, text in names.items()}
    if names["bos"] and not isinstance(told["bos"], bool):
        adds["bos"] = inside["bos"] or _class_name(config) in BEGIN_BY_DEFAULT
        adds["eos"] = adds["eos"] or (not isinstance(told["eos"], bool) and inside["eos"])
    elif names["bos"] and not adds["bos"]:
        adds = {name: adds[name] or inside[name] for name in adds}
    if _has_word_marks(document):
        adds["eos"] = False
    before, after = ({names[name]} if adds[name] and names[name] else set() for name in ("bos", "eos"))
    return before, after


def _unigram(document: TokenizerDocument, config: Mapping[str, Any]) -> Form:
    """Under a class that the runtime reads so, and with the flags that it does not take from the post-processor."""
    before, after = _surrounding(document)
    module: dict[str, Any] = {"add_bos_token": bool(before), "add_eos_token": bool(after)}
    name = str(config.get("tokenizer_class") or "").removesuffix("Fast")
    if name not in UNIGRAM_CLASSES or (name == "T5Tokenizer" and not after):
        module["tokenizer_class"] = "XLMRobertaTokenizer"
    told = {key: config.get(key, False) for key in ("add_bos_token", "add_eos_token")}
    changed = any(module.get(key) != value for key, value in told.items()) or "tokenizer_class" in module
    return Form(module=module if changed else {}, changes=["its class and flags are others"] if changed else [])


def _class_name(config: Mapping[str, Any]) -> str:
    """The class without "Tokenizer" and what follows, as the runtime cuts it."""
    return str(config.get("tokenizer_class") or "").partition("Tokenizer")[0]


REWRITES = (_with_pairs, _with_known_splits, _with_spaces_in_tokens, _with_beginning, _with_word_marks)
"""In this order: the last one takes normalizers and pre-tokenizers away that the others read."""
