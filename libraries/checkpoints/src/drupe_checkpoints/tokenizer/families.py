"""What a family of tokenizers adds to the pieces of sentencepiece: tokens around a text, and further ids."""

from __future__ import annotations

from drupe.api import Record, replace
from drupe_checkpoints.tokenizer.parts import Json, replace_pattern
from drupe_checkpoints.tokenizer.sentencepiece_file import CONTROL, UNKNOWN, Pieces
from drupe_checkpoints.tokenizer.settings import Settings


class Family(Record):
    """The habits of a tokenizer's class.

    first, last: it puts a token before and behind a text where no file says so. steps: what it does to a text before
    sentencepiece sees it.
    """

    first: bool = True
    last: bool = False
    steps: tuple[Json, ...] = ()


NOT_PRINTED = "[\x00-\x08\x0b-\x1f\x7f-\xa0\xad\u200b]"
SPACES = "[\u2002\u2003\u2005\u2008\u2009\u200a\u202f\u3000\ufffc]"
"""What GPT-SW3 drops, and what it takes for a space."""
FAMILIES = {
    "GPTSw3Tokenizer": Family(
        first=False, steps=(replace_pattern(NOT_PRINTED, ""), replace_pattern(SPACES, " "), {"type": "NFC"})
    ),
    "T5Tokenizer": Family(first=False, last=True),
    "UdopTokenizer": Family(first=False, last=True),
    "XLMRobertaTokenizer": Family(first=True, last=True),
}
"""Classes whose habits are not those of Llama's."""
OTHER_IDS = frozenset(
    {
        "AlbertTokenizer", "BarthezTokenizer", "BartphoTokenizer", "BertGenerationTokenizer", "BigBirdTokenizer",
        "CamembertTokenizer", "CpmTokenizer", "DebertaV2Tokenizer", "FNetTokenizer", "M2M100Tokenizer",
        "MBart50Tokenizer", "MBartTokenizer", "MarianTokenizer", "NllbTokenizer", "PLBartTokenizer", "PegasusTokenizer",
        "ReformerTokenizer", "RemBertTokenizer", "SeamlessM4TTokenizer", "SiglipTokenizer", "Speech2TextTokenizer",
        "XGLMTokenizer", "XLNetTokenizer", "XLMProphetNetTokenizer",
    }
)  # fmt: skip
"""Classes that number the pieces in their own way, or change the text first: none of them is for decoders."""
WITHOUT_DOCUMENT = frozenset(
    {
        "BartphoTokenizer", "BertGenerationTokenizer", "CpmTokenizer", "M2M100Tokenizer", "MarianTokenizer",
        "PLBartTokenizer", "SiglipTokenizer", "Speech2TextTokenizer", "XLMProphetNetTokenizer",
    }
)  # fmt: skip
"""Those of them for which transformers makes no tokenizer.json."""
EXTRA_IDS = 100
"""How many tokens T5 puts behind the pieces, where tokenizer_config.json does not say it."""


def family_of(settings: Settings) -> Family:
    return FAMILIES.get(settings.declared_class, Family())


def numbered(pieces: Pieces, settings: Settings) -> Pieces:
    """The pieces as the family numbers them, with the names that added_tokens_decoder gives to pieces."""
    if settings.declared_class == "XLMRobertaTokenizer":
        pieces = _fairseq(pieces)
    if settings.declared_class == "T5Tokenizer":
        count = settings.config.get("extra_ids", EXTRA_IDS)
        extra = [f"<extra_id_{number}>" for number in reversed(range(count if isinstance(count, int) else EXTRA_IDS))]
        pieces = _longer(pieces, extra)
    return _renamed(pieces, settings)


def _fairseq(pieces: Pieces) -> Pieces:
    """fairseq has four special tokens where sentencepiece has three, in another order, and a mask behind all."""
    first = ["<s>", "<pad>", "</s>", "<unk>"]
    kinds = [CONTROL, CONTROL, CONTROL, UNKNOWN, *pieces.kinds[3:]]
    shifted = replace(pieces, texts=[*first, *pieces.texts[3:]], scores=[0.0] * 4 + pieces.scores[3:], kinds=kinds)
    return _longer(shifted, ["<mask>"])


def _longer(pieces: Pieces, texts: list[str]) -> Pieces:
    new = [text for text in texts if text not in set(pieces.texts)]
    return replace(
        pieces,
        texts=pieces.texts + new,
        scores=pieces.scores + [0.0] * len(new),
        kinds=pieces.kinds + [CONTROL] * len(new),
    )


def _renamed(pieces: Pieces, settings: Settings) -> Pieces:
    """Pieces that added_tokens_decoder gives another name, such as the spare control pieces of Mistral."""
    decoder = settings.config.get("added_tokens_decoder")
    if not isinstance(decoder, dict):
        return pieces
    texts, kinds, known = list(pieces.texts), list(pieces.kinds), set(pieces.texts)
    for key, token in decoder.items():
        text = token.get("content") if isinstance(token, dict) else None
        number = int(key) if key.isdigit() else len(texts)
        if number < len(texts) and isinstance(text, str) and text and text not in known:
            known.add(text)
            texts[number] = text
            kinds[number] = UNKNOWN if kinds[number] == UNKNOWN else CONTROL
    return replace(pieces, texts=texts, kinds=kinds)
