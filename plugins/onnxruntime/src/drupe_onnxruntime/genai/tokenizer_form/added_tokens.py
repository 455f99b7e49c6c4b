"""Added tokens whose rules onnxruntime-genai ignores."""

from __future__ import annotations

from drupe_onnxruntime.genai.tokenizer_form.rewritten import Rewritten, Use
from drupe_tokenization import TokenizerDocument


def with_spaces_before(document: TokenizerDocument, use: Use) -> Rewritten:
    """Special tokens with `lstrip` once more with the space before them, which is dropped."""
    tokens = [token for token in document.added_tokens if token.get("special") and token.get("lstrip")]
    if not tokens:
        return Rewritten(document)
    more = [{**token, "content": " " + token["content"]} for token in tokens]
    rewritten = document.changed(added_tokens=[*document.added_tokens, *more])
    return Rewritten(rewritten, "the special tokens take the space before them")
