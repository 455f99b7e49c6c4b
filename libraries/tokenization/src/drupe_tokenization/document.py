"""TokenizerDocument: tokenizer.json, without parsing its vocabulary and merges, which are nearly all of its bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from drupe.api import ModelError, Record, replace
from drupe_files import json_object

AGAIN = "download the tokenizer's files again, or save them with transformers"
# These keys cannot be matched inside a JSON string, because a quote in a string has a backslash before it.
_VOCABULARY = re.compile(rb'"vocab"\s*:\s*(?=[{\[])')
_MERGES = re.compile(rb'"merges"\s*:\s*(?=\[)')
_INDENT = re.compile(rb"\n\s*")  # a string in JSON holds no line end
_END = re.compile(rb"\]\s*\}\s*\}\s*\Z")


class TokenizerDocument(Record):
    """settings: the object in the file; its "model" has neither "vocab" nor "merges". These two are JSON, as bytes."""

    settings: Mapping[str, Any]
    vocabulary: bytes
    merges: bytes | None

    @classmethod
    def read(cls, content: bytes) -> TokenizerDocument:
        """Raises ModelError where the content is not a tokenizer."""
        return _cut(content) or _parsed(content)

    @property
    def model(self) -> Mapping[str, Any]:
        model: Mapping[str, Any] = self.settings["model"]
        return model

    @property
    def kind(self) -> str:
        """The model's type. It is missing in files of the first years, which all hold byte-pair encodings."""
        return str(self.model.get("type", "BPE"))

    @property
    def added_tokens(self) -> list[dict[str, Any]]:
        """The entries of the file that have a text."""
        return [token for token in self.settings.get("added_tokens") or () if token.get("content")]

    def steps(self, key: str) -> list[dict[str, Any]]:
        """The normalizers, pre_tokenizers, decoders or processors in order, those inside sequences included."""
        return _flat(self.settings.get(key))

    def numbers_end_below(self, rows: int) -> bool:
        """Whether all tokens surely have numbers below `rows`. False where the vocabulary has to be read for that.

        An added token that the vocabulary lacks gets a number behind those of the others.
        """
        last = rows - len(self.added_tokens)
        if self.kind == "Unigram" or last < 1:
            return False
        large = re.compile(rb'"\s*:\s*(\d{%d,})' % len(str(last)))
        return not any(int(found) >= last for found in large.findall(self.vocabulary))

    def changed(self, **settings: Any) -> TokenizerDocument:
        """The document with other settings."""
        return replace(self, settings={**self.settings, **settings})

    def write(self) -> bytes:
        """The document as JSON."""
        model = {key: value for key, value in self.model.items() if key not in ("vocab", "merges")}
        others = {key: value for key, value in self.settings.items() if key != "model"}
        merges = [] if self.merges is None else [b',"merges":', self.merges]
        start, inner = _compact({**others, "model": 0})[: -len("0}")], _compact(model)[: -len("}")]
        comma = "," if model else ""
        joined = b"".join([f'{start}{inner}{comma}"vocab":'.encode(), self.vocabulary, *merges, b"}}\n"])
        return _INDENT.sub(b"", joined) + b"\n"


def _flat(step: Any) -> list[dict[str, Any]]:
    if not isinstance(step, dict):
        return []
    inner = next((step[key] for key in ("normalizers", "pretokenizers", "decoders", "processors") if key in step), None)
    return [step] if inner is None else [found for each in inner for found in _flat(each)]


def _cut(content: bytes) -> TokenizerDocument | None:
    """The document, cut at the places where `tokenizers` writes vocabulary and merges; None for another layout."""
    vocabulary, end = _VOCABULARY.search(content), _END.search(content, max(0, len(content) - 64))
    merges = _MERGES.search(content, vocabulary.end()) if vocabulary else None
    if vocabulary is None or merges is None or end is None:
        return None
    before = content[vocabulary.end() : merges.start()].rstrip()
    if not before.endswith(b","):
        return None
    try:
        settings = json.loads(content[: vocabulary.end()] + b"null" + content[end.start() + 1 :])
        model = settings["model"]
        if model.pop("vocab") is not None:
            return None
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return TokenizerDocument(settings, before[:-1].rstrip(), content[merges.end() : end.start() + 1])


def _parsed(content: bytes) -> TokenizerDocument:
    settings = json_object(content, "tokenizer.json", "tokenizer.json", AGAIN)
    model = settings.get("model")
    if not isinstance(model, dict):
        raise ModelError("tokenizer.json is not a tokenizer: it has no model", where="tokenizer.json", cure=AGAIN)
    vocabulary, merges = model.pop("vocab", {}), model.pop("merges", None)
    written = None if merges is None else _compact(merges).encode()
    return TokenizerDocument(settings, _compact(vocabulary).encode(), written)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
