"""Writes the table of what transformers' tokenizer classes bring: python tools/tokenizer_classes.py.

Needs transformers. Each class that builds its own tokenizer is made with a small vocabulary, once for each value of
the switches that change its steps.
"""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent.parent / "libraries/checkpoints/src/drupe_checkpoints/tokenizer/classes.json"
SWITCHES = ("add_prefix_space", "legacy", "do_lower_case", "strip_accents", "tokenize_chinese_chars", "keep_accents",
            "do_lowercase", "remove_space")  # fmt: skip
"""The keys of tokenizer_config.json that change the steps of some class."""
TOKENS = ("unk_token", "bos_token", "eos_token", "pad_token", "cls_token", "sep_token", "mask_token")
PARTS = ("normalizer", "pre_tokenizer", "decoder")
GENERIC = ("MistralCommonBackend", "PreTrainedTokenizerFast", "PythonBackend")
"""The classes that stand for the file as it is."""
OWN_LETTERS = ("\u2581", "a", "b", "c", "d", "e", "<extra>")
LISTED = ("BarthezTokenizer", "CamembertTokenizer", "MLukeTokenizer")
"""Classes with a list of pieces that do not say so."""
LEFT_OUT = ("EsmcTokenizer", "PegasusTokenizer", "RoFormerTokenizer")
"""Classes that take no vocabulary, that want it in one order, and that need another package."""
Json = dict[str, Any]


def table() -> Json:
    """The content of the table."""
    from transformers.models.auto import tokenization_auto as auto

    registered = {
        kind: "TokenizersBackend" if name in GENERIC else name.removesuffix("Fast")
        for kind, name in auto.TOKENIZER_MAPPING_NAMES.items()
        if name
    }
    steps: list[Any] = []
    classes = {name: row for name in sorted(building_classes()) if (row := _row(building_classes()[name], steps))}
    return {
        "registered": dict(sorted(registered.items())),
        "named_wrongly": sorted(auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS),
        "steps": steps,
        "classes": classes,
    }


def written(content: Json) -> str:
    """The table as text, with a line for each entry of each part."""
    parts = []
    for name, part in content.items():
        entries = part if isinstance(part, list) else part.items()
        lines = [_line(each) if isinstance(part, list) else f"{_line(each[0])}: {_line(each[1])}" for each in entries]
        opens, closes = "[]" if isinstance(part, list) else "{}"
        parts.append(f"{_line(name)}: {opens}\n" + ",\n".join(lines) + f"\n{closes}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def building_classes() -> dict[str, Any]:
    """The classes of transformers that build their own tokenizer, by name."""
    import transformers
    from transformers import TokenizersBackend
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    found = {}
    for name in {name.removesuffix("Fast") for name in TOKENIZER_MAPPING_NAMES.values() if name}:
        made = getattr(transformers, name, None)
        builds = inspect.isclass(made) and issubclass(made, TokenizersBackend) and "__init__" in made.__dict__
        if builds and made is not TokenizersBackend and name not in LEFT_OUT:
            found[name] = made
    return found


def _row(kind: Any, steps: list[Any]) -> Json:
    """What a class brings. Its steps are numbers of entries in `steps`, by the values of its switches."""
    settings = _settings(kind)
    defaults = {name: settings[name].default for name in SWITCHES if name in settings}
    usual = _made(kind, {})
    changing = [name for name in defaults if any(_made(kind, {name: value}) != usual for value in (True, False))]
    made = {}
    for values in itertools.product(("true", "false", "null"), repeat=len(changing)):
        try:
            document = _made(kind, dict(zip(changing, map(json.loads, values), strict=True)))
        except TypeError:  # this class takes no null
            continue
        made[" ".join(values)] = [_number(document[part], steps) for part in PARTS]
    return {
        "tokens": _tokens(settings),
        "model": usual["model"],
        "drops_what_is_around": usual["post_processor"] is None,
        "switches": {name: defaults[name] for name in changing},
        "made": made,
    }


def _settings(kind: Any) -> Mapping[str, inspect.Parameter]:
    """The parameters of a class, or of the one that it hands all on to."""
    signatures = (inspect.signature(each.__init__).parameters for each in kind.__mro__)
    return next(each for each in signatures if "vocab" in each)


def _tokens(settings: Mapping[str, inspect.Parameter]) -> dict[str, str]:
    named = {name: settings[name].default for name in TOKENS if name in settings}
    return {name: str(token) for name, token in named.items() if token not in (None, inspect.Parameter.empty)}


def _number(step: Any, steps: list[Any]) -> int:
    if step not in steps:
        steps.append(step)
    return steps.index(step)


def _made(kind: Any, switches: Mapping[str, Any]) -> Json:
    """The tokenizer that a class makes, as tokenizer.json, without its vocabulary."""
    from tokenizers import processors

    tokens = _tokens(_settings(kind))
    texts = list(dict.fromkeys([*tokens.values(), *OWN_LETTERS]))
    given: Json = {**tokens, **switches, "post_processor": processors.Sequence([])}
    if "tags_dict" in _settings(kind):
        given["tags_dict"] = {}
    listed = getattr(kind.model, "__name__", "") == "Unigram" or kind.__name__ in LISTED
    vocab: Any = [(text, 0.0) for text in texts] if listed else {text: at for at, text in enumerate(texts)}
    document: Json = json.loads(kind(vocab=vocab, **given).backend_tokenizer.to_str())
    model = {key: value for key, value in document["model"].items() if key not in ("vocab", "merges")}
    if model.get("unk_token") == tokens.get("unk_token") is not None:
        model["unk_token"] = "unk_token"  # the one that the files name
    model.pop("unk_id", None)
    return {**document, "model": model, "added_tokens": None}


if __name__ == "__main__":
    TABLE.write_text(written(table()), encoding="utf-8")
