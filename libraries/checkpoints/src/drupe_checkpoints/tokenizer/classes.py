"""What a tokenizer's class makes of vocabulary and merges in transformers 5.

Some classes of transformers 5 take vocabulary and merges from tokenizer.json, and bring the other steps themselves.
`class_of` tells the class that AutoTokenizer takes, and `rebuilt` the tokenizer.json that it amounts to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from drupe_checkpoints.tokenizer.parts import (
    MARK,
    QWEN2_WORDS,
    QWEN3_5_WORDS,
    Json,
    byte_level,
    metaspace,
    replace,
    sequence,
    split,
)
from drupe_checkpoints.tokenizer.settings import Settings

AS_WRITTEN = "TokenizersBackend"
"""The class that takes a tokenizer.json as it is."""
GENERIC = frozenset({AS_WRITTEN, "", "PreTrainedTokenizer", "PythonBackend", "BloomTokenizer"})

QWEN2, GPT2, NEOX = "Qwen2Tokenizer", "GPT2Tokenizer", "GPTNeoXTokenizer"
GEMMA, LLAMA = "GemmaTokenizer", "LlamaTokenizer"
# By `model_type`: the class that AutoTokenizer has for it. Other model types take the class that the files name.
REGISTERED = {
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen2_vl", "qwen3", "qwen3_moe", "qwen3_next"), QWEN2),
    **dict.fromkeys(("gpt2", "gpt_neo", "gptj", "opt", "phi", "starcoder2", "dbrx"), GPT2),
    **dict.fromkeys(("gpt_neox", "falcon_mamba", "mamba", "mamba2", "mpt", "olmo", "olmoe", "rwkv"), NEOX),
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n_text", "recurrent_gemma"), GEMMA),
    **dict.fromkeys(
        ("glm", "glm4", "gpt_bigcode", "granite", "granitemoe", "granitemoehybrid", "ministral", "ministral3",
         "mistral", "mistral3", "mixtral", "nemotron", "olmo2", "olmo3", "persimmon", "phi3", "phimoe", "stablelm"),
        AS_WRITTEN,
    ),
}  # fmt: skip
NAMED_WRONGLY = frozenset({"minicpm3", "nemotron", "phi3", "phimoe", "qwen2"})
"""The model types whose published files name a wrong class, so that AutoTokenizer takes its own."""


def class_of(settings: Settings, document: Json) -> str:
    """The class that AutoTokenizer takes for a tokenizer.json."""
    declared, own = settings.declared_class, REGISTERED.get(settings.model_type, "")
    wrongly = settings.model_type in NAMED_WRONGLY
    foreign_code = "auto_map" in settings.config
    if declared == LLAMA and not wrongly and not foreign_code and _is_byte_level(document):
        return AS_WRITTEN
    if declared and own and own != declared and not foreign_code:
        declared = AS_WRITTEN if own == AS_WRITTEN else own if wrongly else declared
    name = declared or own
    return AS_WRITTEN if name in GENERIC else name


def _is_byte_level(document: Json) -> bool:
    steps = (step for part in ("pre_tokenizer", "decoder") for step in _steps(document.get(part)))
    return any(step.get("type") == "ByteLevel" for step in steps)


@dataclass(frozen=True)
class Rebuilt:
    """What a class makes of a tokenizer.json. defaults: its special tokens, by name.

    plain: at the end, it gives all special tokens the usual flags.
    """

    document: Json
    defaults: Mapping[str, str]
    plain: bool = False


@dataclass(frozen=True)
class Steps:
    """The steps that a class brings, and the settings of its model. bare: it drops what is put around a text."""

    model: Mapping[str, Any]
    decoder: Json | None
    normalizer: Json | None = None
    pre_tokenizer: Json | None = None
    bare: bool = False
    plain: bool = False


def rebuilt(name: str, document: Json, settings: Settings) -> Rebuilt | None:
    """The tokenizer.json that class `name` amounts to; None where the class takes the file as it is.

    Steps that do the same as those in the file are left as they are there.
    """
    model = document.get("model")
    if name not in CLASSES or not isinstance(model, dict) or model.get("type") != "BPE":
        return None
    bring, defaults = CLASSES[name]
    steps = bring(settings)
    tokens = {key: settings.named(key) or default for key, default in defaults.items() if _is_open(settings, key)}
    changed = dict(document)
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        if _essence(part, getattr(steps, part)) != _essence(part, document.get(part)):
            changed[part] = getattr(steps, part)
    if steps.bare and _essence("post_processor", document.get("post_processor")):
        changed["post_processor"] = None
    options = {**MODEL_DEFAULTS, **steps.model}
    if _model_essence(model, model) != _model_essence(model, options):
        changed["model"] = {**model, **options}
    return Rebuilt(changed, tokens, steps.plain)


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
    """What of a part decides tokens and texts: offsets do not, and most of ByteLevel does only before the model."""
    kept = []
    for step in _steps(part):
        kind = step.get("type")
        if kind == "ByteLevel" and name != "pre_tokenizer":
            kept += [{"type": kind}] if name == "decoder" else []
            continue
        kept.append({key: value for key, value in step.items() if key not in ("trim_offsets", "str_rep")})
    return kept


def _model_essence(model: Json, options: Mapping[str, Any]) -> Json:
    """What of a model's settings decides tokens: what stands for the unknown does not where each byte has a token."""
    found = {key: options.get(key) or default for key, default in MODEL_DEFAULTS.items()}
    vocab = model.get("vocab") or {}
    if found["byte_fallback"] and all(f"<0x{byte:02X}>" in vocab for byte in range(256)):
        found |= {"unk_token": None, "fuse_unk": False}
    return found


MODEL_DEFAULTS: Mapping[str, Any] = {
    "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False,
    "byte_fallback": False, "ignore_merges": False,
}  # fmt: skip
BYTES: Json = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


def _qwen2(settings: Settings) -> Steps:
    cut = [split(QWEN2_WORDS), byte_level(cuts=False, prefix=settings.says("add_prefix_space", False))]
    return Steps({}, BYTES, {"type": "NFC"}, sequence("pretokenizers", cut), plain=True)


def _qwen3_5(settings: Settings) -> Steps:
    cut = [split(QWEN3_5_WORDS), byte_level(cuts=False, prefix=settings.says("add_prefix_space", False))]
    return Steps({}, BYTES, {"type": "NFC"}, sequence("pretokenizers", cut))


def _cohere(settings: Settings) -> Steps:
    digits: Json = {"type": "Digits", "individual_digits": True}
    cut = [digits, byte_level(cuts=True, prefix=settings.says("add_prefix_space", False))]
    return Steps({}, BYTES, {"type": "NFC"}, sequence("pretokenizers", cut))


def _gpt2(settings: Settings) -> Steps:
    return Steps({}, BYTES, None, byte_level(cuts=True, prefix=settings.says("add_prefix_space", False)))


def _neox(settings: Settings) -> Steps:
    cut = byte_level(cuts=True, prefix=settings.says("add_prefix_space", False))
    return Steps({}, BYTES, {"type": "NFC"}, cut, bare=True)


def _llama(settings: Settings) -> Steps:
    prefix = settings.says("add_prefix_space", True)
    scheme = ("always" if settings.says("legacy", False) else "first") if prefix else "never"
    return Steps({"fuse_unk": True, "byte_fallback": True}, _pieces(strip=prefix), None, metaspace(scheme))


def _gemma(settings: Settings) -> Steps:
    cut: Json = {
        "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False,
    }  # fmt: skip
    model = {"fuse_unk": True, "byte_fallback": True, "unk_token": settings.named("unk_token") or "<unk>"}
    return Steps(model, _pieces(strip=False), replace(" ", MARK), cut)


def _pieces(*, strip: bool) -> Json | None:
    """The decoder for pieces of sentencepiece."""
    steps: list[Json] = [replace(MARK, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]
    return sequence("decoders", [*steps, {"type": "Strip", "content": " ", "start": 1, "stop": 0}] if strip else steps)


_END = "<|endoftext|>"
CLASSES: Mapping[str, tuple[Callable[[Settings], Steps], Mapping[str, str]]] = {
    QWEN2: (_qwen2, dict.fromkeys(("unk_token", "eos_token", "pad_token"), _END)),
    GPT2: (_gpt2, dict.fromkeys(("unk_token", "bos_token", "eos_token"), _END)),
    NEOX: (_neox, {**dict.fromkeys(("unk_token", "bos_token", "eos_token"), _END), "pad_token": "<|padding|>"}),
    "Qwen3_5Tokenizer": (_qwen3_5, dict.fromkeys(("unk_token", "eos_token", "pad_token"), _END)),
    "CohereTokenizer": (
        _cohere,
        {
            "unk_token": "<UNK>",
            "bos_token": "<BOS_TOKEN>",
            "eos_token": "<|END_OF_TURN_TOKEN|>",
            "pad_token": "<PAD>",
            "cls_token": "<CLS>",
            "sep_token": "<SEP>",
            "mask_token": "<MASK_TOKEN>",
        },
    ),
    LLAMA: (_llama, {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}),
    GEMMA: (
        _gemma,
        {
            "unk_token": "<unk>",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "mask_token": "<mask>",
        },
    ),
}
"""The classes that build a tokenizer anew: the steps that they bring, and their special tokens."""
