"""What a tokenizer's class makes of vocabulary and merges in transformers 5.

Some classes of transformers 5 take vocabulary and merges from tokenizer.json, and bring the other steps themselves.
`class_of` tells the class that AutoTokenizer takes, and `rebuilt` the tokenizer.json that it amounts to. What each
class brings stands in classes.json, which tools/tokenizer_classes.py makes out of transformers' own classes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from drupe.api import Record
from drupe_checkpoints.tokenizer.parts import Json
from drupe_checkpoints.tokenizer.settings import Settings

AS_WRITTEN = "TokenizersBackend"
"""The class that takes a tokenizer.json as it is."""
QWEN2, GPT2, NEOX = "Qwen2Tokenizer", "GPT2Tokenizer", "GPTNeoXTokenizer"
GEMMA, LLAMA = "GemmaTokenizer", "LlamaTokenizer"
PARTS = ("normalizer", "pre_tokenizer", "decoder")


class Row(Record):
    """What a class brings. model: its kind and options, where "unk_token" stands for the token that the files name.

    tokens: its special tokens, by name. drops_what_is_around: it forgets the post_processor of the file. switches:
    the keys of tokenizer_config.json that change its steps, with its defaults. made: for values of the switches, the
    numbers of its steps, in the order of PARTS.
    """

    model: Mapping[str, Any]
    tokens: Mapping[str, str]
    drops_what_is_around: bool
    switches: Mapping[str, bool | None]
    made: Mapping[str, list[int]]


class Table(Record):
    """classes.json. registered: for a `model_type` the class that AutoTokenizer has for it; other types take the class
    that the files name. named_wrongly: the types whose files name a wrong class, so that AutoTokenizer takes its own.
    """

    registered: Mapping[str, str]
    named_wrongly: frozenset[str]
    steps: list[Json | None]
    classes: Mapping[str, Row]


@functools.cache
def table() -> Table:
    content = json.loads(files("drupe_checkpoints.tokenizer").joinpath("classes.json").read_text("utf-8"))
    return Table(
        content["registered"],
        frozenset(content["named_wrongly"]),
        content["steps"],
        {name: Row(**row) for name, row in content["classes"].items()},
    )


def class_of(settings: Settings, document: Json) -> str:
    """The class that AutoTokenizer takes for a tokenizer.json."""
    declared, own = settings.declared_class, registered_class(settings)
    wrongly = settings.model_type in table().named_wrongly
    foreign_code = "auto_map" in settings.config
    if declared == LLAMA and not wrongly and not foreign_code and _is_byte_level(document):
        return AS_WRITTEN
    if declared and own and own != declared and not foreign_code:
        declared = AS_WRITTEN if own == AS_WRITTEN else own if wrongly else declared
    name = declared or own
    return name if name in table().classes else AS_WRITTEN


def registered_class(settings: Settings) -> str:
    """The class that AutoTokenizer has for the model's type; empty where it has none."""
    types = table()
    return types.registered.get(settings.model_type, AS_WRITTEN if settings.model_type in types.named_wrongly else "")


def _is_byte_level(document: Json) -> bool:
    steps = (step for part in ("pre_tokenizer", "decoder") for step in _steps(document.get(part)))
    return any(step.get("type") == "ByteLevel" for step in steps)


class Rebuilt(Record):
    """What a class makes of a tokenizer.json. defaults: its special tokens, by name.

    plain: at the end, it gives all special tokens the usual flags.
    """

    document: Json
    defaults: Mapping[str, str]
    plain: bool = False


def rebuilt(name: str, document: Json, settings: Settings) -> Rebuilt | None:
    """The tokenizer.json that class `name` amounts to; None where the class takes the file as it is.

    Steps that do the same as those in the file are left as they are there.
    """
    row, model = table().classes.get(name), document.get("model")
    if row is None or not isinstance(model, dict) or "type" not in model:
        return None
    changed = dict(document)
    for part, number in zip(PARTS, row.made[_values(row, settings)], strict=True):
        step = table().steps[number]
        if _essence(part, step) != _essence(part, document.get(part)):
            changed[part] = step
    if row.drops_what_is_around and _essence("post_processor", document.get("post_processor")):
        changed["post_processor"] = None
    options = _options(row, settings)
    if _model_essence(model, model) != _model_essence(model, options):
        changed["model"] = {**model, **options}
    tokens = {key: settings.named(key) or default for key, default in row.tokens.items() if _is_open(settings, key)}
    return Rebuilt(changed, tokens, plain=name == QWEN2)


def _values(row: Row, settings: Settings) -> str:
    """The values of the class's switches, as `Row.made` has them. A class may have none for null: then it is unsaid."""
    said = {key: settings.config.get(key, default) for key, default in row.switches.items()}
    values = " ".join(json.dumps(value if value is None else bool(value)) for value in said.values())
    if values in row.made:
        return values
    return " ".join(json.dumps(row.switches[key] if value is None else bool(value)) for key, value in said.items())


def _options(row: Row, settings: Settings) -> Json:
    """The settings of the class's model, with the token that stands for the unknown."""
    options = dict(row.model)
    if options.get("unk_token") == "unk_token":
        options["unk_token"] = settings.named("unk_token") or row.tokens["unk_token"]
    return options


def _is_open(settings: Settings, key: str) -> bool:
    """Whether a class may bring its own token: a file that says null wants none."""
    return key not in settings.config or settings.config[key] is not None


def _steps(part: Any) -> list[Json]:
    """The single steps of a part of tokenizer.json, without the sequences that hold them."""
    if not isinstance(part, dict):
        return []
    if part.get("type") != "Sequence":
        return [part]
    held: list[Any] = next(
        (part[key] for key in ("normalizers", "pretokenizers", "decoders", "processors") if key in part), []
    )
    return [step for each in held for step in _steps(each)]


def _essence(name: str, part: Any) -> list[Json]:
    """What of a part decides tokens and texts: offsets do not, and most of ByteLevel does only before the model.

    Precompiled does not count: the classes take it from the file.
    """
    kept = []
    for step in _steps(part):
        kind = step.get("type")
        if kind == "ByteLevel" and name != "pre_tokenizer":
            kept += [{"type": kind}] if name == "decoder" else []
        elif kind == "Metaspace":
            kept.append(_metaspace_essence(name, step))
        elif kind != "Precompiled":
            whole = {**STEP_DEFAULTS.get(str(kind), {}), **step}
            kept.append({key: value for key, value in whole.items() if key not in ("trim_offsets", "str_rep")})
    return kept


def _metaspace_essence(name: str, step: Json) -> Json:
    """Metaspace as new files say it. Older ones have add_prefix_space in place of prepend_scheme."""
    scheme = step.get("prepend_scheme") or ("always" if step.get("add_prefix_space", True) else "never")
    essence = {"type": step["type"], "replacement": step.get("replacement"), "prepend_scheme": scheme}
    return essence if name == "decoder" else {**essence, "split": step.get("split", True)}


def _model_essence(model: Json, options: Mapping[str, Any]) -> Json:
    """What of a model's settings decides tokens: what stands for the unknown does not where each byte has a token."""
    kind = options.get("type") or "BPE"
    found = {
        "type": kind,
        **{key: options.get(key) or default for key, default in MODEL_DEFAULTS.get(kind, {}).items()},
    }
    vocab = model.get("vocab") or {}
    if found.get("byte_fallback") and kind == "BPE" and all(f"<0x{byte:02X}>" in vocab for byte in range(256)):
        found |= {"unk_token": None, "fuse_unk": False}
    return found


MODEL_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "BPE": {
        "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
        "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
    },
    "WordPiece": {"unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
    "Unigram": {"byte_fallback": False},
}  # fmt: skip
"""By the kind of model, the settings that decide tokens, and what they are where they are left out."""
STEP_DEFAULTS: Mapping[str, Mapping[str, Any]] = {"ByteLevel": {"use_regex": True}, "WordPiece": {"cleanup": True}}
"""What older files leave out."""
