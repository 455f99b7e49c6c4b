"""The tokens around a text, which the post-processor tells and onnxruntime-genai guesses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from drupe_onnxruntime.genai.tokenizer_form.rewritten import Rewritten, Use
from drupe_onnxruntime.genai.tokenizer_form.word_marks import has_word_marks
from drupe_tokenization import TokenizerDocument

BEGIN_BY_DEFAULT = ("Llama", "Phi3", "InternLM2", "Gemma", "CodeLlama", "Mistral")
"""Classes whose tokenizers put the beginning of sequence before a text if nothing else is said."""


def with_beginning(document: TokenizerDocument, use: Use) -> Rewritten:
    """The tokens before and after a text, which the post-processor tells."""
    wanted, names = surrounding(document), _named(use.config)
    if wanted == _guessed(document, use) or not wanted[0] <= {names["bos"]} or not wanted[1] <= {names["eos"]}:
        return Rewritten(document)
    module = {"add_bos_token": bool(wanted[0]), "add_eos_token": bool(wanted[1])}
    return Rewritten(document.changed(post_processor=None), "the tokens around a text are named", module)


def surrounding(document: TokenizerDocument) -> tuple[set[str], set[str]]:
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


def _guessed(document: TokenizerDocument, use: Use) -> tuple[set[str], set[str]]:
    """The tokens that the runtime puts before and after a text, as it guesses them."""
    names, told = _named(use.config), {name: use.config.get(f"add_{name}_token") for name in ("bos", "eos")}
    adds = {name: told[name] is True for name in told}
    mentioned = json.dumps(document.settings.get("post_processor"), ensure_ascii=False)
    inside = {name: bool(text) and text in mentioned for name, text in names.items()}
    if names["bos"] and not isinstance(told["bos"], bool):
        adds["bos"] = inside["bos"] or use.class_name in BEGIN_BY_DEFAULT
        adds["eos"] = adds["eos"] or (not isinstance(told["eos"], bool) and inside["eos"])
    elif names["bos"] and not adds["bos"]:
        adds = {name: adds[name] or inside[name] for name in adds}
    if has_word_marks(document):
        adds["eos"] = False
    before, after = ({names[name]} if adds[name] and names[name] else set() for name in ("bos", "eos"))
    return before, after
