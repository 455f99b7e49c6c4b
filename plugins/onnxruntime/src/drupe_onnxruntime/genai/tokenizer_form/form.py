"""TokenizerForm: what onnxruntime-genai reads instead of a checkpoint's tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drupe_onnxruntime.genai.tokenizer_form.added_tokens import with_spaces_before
from drupe_onnxruntime.genai.tokenizer_form.beginning import surrounding, with_beginning
from drupe_onnxruntime.genai.tokenizer_form.merges import with_pairs
from drupe_onnxruntime.genai.tokenizer_form.rewritten import Use
from drupe_onnxruntime.genai.tokenizer_form.splits import with_known_splits
from drupe_onnxruntime.genai.tokenizer_form.word_marks import with_word_marks
from drupe_tokenization import TokenizerDocument

OWN = "genai_tokenizer.json"
MODULE = "tokenizer_module.json"
UNIGRAM_CLASSES = frozenset(
    {"ChatGLMTokenizer", "DebertaV2Tokenizer", "MarianTokenizer", "T5Tokenizer", "XLMRobertaTokenizer"}
)
REWRITES = (with_pairs, with_known_splits, with_beginning, with_word_marks, with_spaces_before)
"""In this order: `with_word_marks` takes normalizers and pre-tokenizers away that those before it read."""


@dataclass
class TokenizerForm:
    """What the runtime reads instead of the checkpoint's files.

    document: its own tokenizer; None where it reads tokenizer.json. module: settings that go before those in
    tokenizer_config.json. changes: what is different, in words. cure: what a script has to do about what remains.
    """

    document: TokenizerDocument | None = None
    module: dict[str, Any] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    cure: str = ""

    def files(self) -> dict[str, Path | bytes]:
        files: dict[str, Path | bytes] = {}
        module = dict(self.module)
        if self.document is not None:
            files[OWN] = self.document.write()
            module["tiktoken_file"] = OWN
        if module:
            files[MODULE] = (json.dumps(module, indent=2, ensure_ascii=False) + "\n").encode()
        return files


def form_for(document: TokenizerDocument, use: Use) -> TokenizerForm:
    """The form for a tokenizer."""
    if document.kind == "Unigram":
        return _unigram(document, use.config)
    if document.kind != "BPE":
        # The runtime refuses it by its name, and does not read it as something else.
        return TokenizerForm(module={"tokenizer_class": document.kind})
    form = TokenizerForm()
    changed = document
    for rewrite in REWRITES:
        rewritten = rewrite(changed, use)
        changed = rewritten.document
        form.module.update(rewritten.module)
        form.changes += [rewritten.change] if rewritten.change else []
        form.cure = form.cure or rewritten.cure
    form.document = None if changed is document else changed
    return form


def _unigram(document: TokenizerDocument, config: Mapping[str, Any]) -> TokenizerForm:
    """Under a class that the runtime reads so, and with the flags that it does not take from the post-processor."""
    before, after = surrounding(document)
    module: dict[str, Any] = {"add_bos_token": bool(before), "add_eos_token": bool(after)}
    name = str(config.get("tokenizer_class") or "").removesuffix("Fast")
    if name not in UNIGRAM_CLASSES or (name == "T5Tokenizer" and not after):
        module["tokenizer_class"] = "XLMRobertaTokenizer"
    told = {key: config.get(key, False) for key in ("add_bos_token", "add_eos_token")}
    changed = any(module.get(key) != value for key, value in told.items()) or "tokenizer_class" in module
    return TokenizerForm(
        module=module if changed else {}, changes=["its class and flags are others"] if changed else []
    )
