"""What a checkpoint's folder says twice: what counts, which is what counts in transformers, and what is left out.

Nothing here raises an error for a broken file or a wrong value: whoever uses the file or the value does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from drupe.api import ModelError, Notice
from drupe_checkpoints.checkpoint import Checkpoint
from drupe_checkpoints.dialects import are_floats
from drupe_checkpoints.quantization.packing import left_over_notices
from drupe_checkpoints.sentence_transformers import MODULES, pools
from drupe_checkpoints.tasks import FEATURE_EXTRACTION, task_of
from drupe_checkpoints.weight_files import ADAPTER_CONFIG, weight_file_notices
from drupe_checkpoints.wording import listed

QUANTIZE, TOKENIZER_CONFIG = "quantize_config.json", "tokenizer_config.json"
PACKED_AS = ("bits", "group_size", "sym", "desc_act")
"""The keys of a quantization that say how matrices are packed."""
WIDER: Mapping[str, frozenset[str]] = {
    "float64": frozenset({"float32", "float16", "bfloat16"}),
    "float32": frozenset({"float16", "bfloat16"}),
}
"""For each type those whose numbers it holds without rounding."""
ROPE_SECTIONS = ("rope_scaling", "rope_parameters")


def folder_notices(checkpoint: Checkpoint) -> tuple[Notice, ...]:
    """The notices on a checkpoint's folder. Reads headers and small files; downloads nothing."""
    rules = [rule for rule in RULES if rule not in OF_ANSWERS or checkpoint.task != FEATURE_EXTRACTION]
    return tuple(notice for rule in rules for notice in rule(checkpoint))


def _adapter(checkpoint: Checkpoint) -> Iterator[Notice]:
    path = checkpoint.folder / ADAPTER_CONFIG
    if path.is_file() and not any(each.folder == checkpoint.folder.absolute() for each in checkpoint.adapters):
        kind = _object(path).get("peft_type")
        yield Notice(
            "adapter",
            "left out",
            f"the folder also holds an adapter{f' ({kind})' if isinstance(kind, str) else ''}, which is not applied; "
            "transformers applies it where peft is installed",
            f"if the model does not contain it yet, merge it: --adapter {checkpoint.folder}",
        )


def _two_quantizations(checkpoint: Checkpoint) -> Iterator[Notice]:
    stated, other = checkpoint.config.get("quantization_config"), _object(checkpoint.folder / QUANTIZE)
    types = checkpoint.stored_types
    if not isinstance(stated, dict) or (types is not None and are_floats(types)):
        return  # weights in floating point: see `_quantization_left_over`
    differing = [key for key in PACKED_AS if key in stated and key in other and stated[key] != other[key]]
    if differing:
        yield Notice(
            "config.json",
            "chosen",
            f"quantization_config in config.json counts, as in transformers, although {QUANTIZE} says otherwise: "
            + ", ".join(f"{key} is {_shown(stated[key])} and {_shown(other[key])}" for key in differing),
            f"correct the file that is wrong, or remove {QUANTIZE}",
        )


def _quantization_left_over(checkpoint: Checkpoint) -> Iterator[Notice]:
    yield from left_over_notices(checkpoint.config, checkpoint.folder, checkpoint.stored_types)


def _two_end_tokens(checkpoint: Checkpoint) -> Iterator[Notice]:
    """An end token of config.json that is none of generation_config.json's."""
    own, generation = checkpoint.config.get("eos_token_id"), checkpoint.generation.get("eos_token_id")
    missed = [token for token in _ids(own) if token not in _ids(generation)]
    if not checkpoint.has_generation_config or not missed:
        return
    said = f"names {_shown(generation)}" if _ids(generation) else "names none"
    yield Notice(
        "generation_config.json",
        "chosen",
        f"an answer does not end with token {listed(missed)}, which config.json names as eos_token_id: "
        f"generation_config.json {said}, and it counts, as in transformers",
        "add the token to eos_token_id in generation_config.json if answers should end with it",
    )


def _end_of_the_tokenizer(checkpoint: Checkpoint) -> Iterator[Notice]:
    """An end token that only tokenizer_config.json names."""
    stated = _object(checkpoint.folder / TOKENIZER_CONFIG).get("eos_token")
    text = stated.get("content") if isinstance(stated, dict) else stated
    if not isinstance(text, str):
        return
    number = _token_number(checkpoint.folder, text)
    known = [*_ids(checkpoint.generation.get("eos_token_id")), *_ids(checkpoint.config.get("eos_token_id"))]
    rows = checkpoint.config.get("vocab_size")
    if number is not None and number not in known and not (isinstance(rows, int) and number >= rows):
        home = "generation_config.json" if checkpoint.has_generation_config else "config.json"
        yield Notice(
            home,
            "chosen",
            f"an answer does not end with {text} (token {number}), which only {TOKENIZER_CONFIG} names as eos_token; "
            "transformers does not end there either",
            f"add {number} to eos_token_id in {home} if answers should end with it",
        )


def _another_type(checkpoint: Checkpoint) -> Iterator[Notice]:
    """Weights that transformers would round when it loads them."""
    stated = checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype")
    stored = _main_type(checkpoint)
    if not isinstance(stated, str) or stored is None:
        return
    stated = stated.removeprefix("torch.")
    if stated != stored and stated in FLOATS and stored in FLOATS and stored not in WIDER.get(stated, ()):
        yield Notice(
            "config.json",
            "has no effect",
            f"the weights are taken as they are stored, in {stored}, although config.json says {stated}; "
            "transformers rounds them when it loads them",
        )


def _main_type(checkpoint: Checkpoint) -> str | None:
    """The type of most weights; None for quantized ones, and where the weights cannot be read."""
    try:
        packing = checkpoint.packing
        found = None if packing else checkpoint.summary()
    except ModelError:
        return None
    return found.elements.most_common(1)[0][0] if found and found.elements else None


def _two_rotary_sections(checkpoint: Checkpoint) -> Iterator[Notice]:
    scaling, parameters = (checkpoint.config.get(key) for key in ROPE_SECTIONS)
    if isinstance(scaling, dict) and isinstance(parameters, dict) and scaling and parameters and scaling != parameters:
        yield _chosen("rope_scaling", "rope_parameters, which differs from it")


def _two_values_for_rotary_embedding(checkpoint: Checkpoint) -> Iterator[Notice]:
    config = checkpoint.config
    section = config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(section, dict):
        return
    name = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    theta = section.get("rope_theta"), config.get("rope_theta")
    if None not in theta and theta[0] != theta[1]:
        yield _chosen(f"rope_theta = {_shown(theta[0])} in {name}", f"rope_theta = {_shown(theta[1])} beside it")
    trained = section.get("original_max_position_embeddings"), config.get("original_max_position_embeddings")
    if None not in trained and trained[0] != trained[1]:
        key = "original_max_position_embeddings"
        yield _chosen(f"{key} = {_shown(trained[1])}", f"{key} = {_shown(trained[0])} in {name}")


def _chosen(this: str, other: str) -> Notice:
    return Notice(
        "config.json", "chosen", f"{this} counts, as in transformers, and not {other}", "remove the one that is wrong"
    )


def _code_beside(checkpoint: Checkpoint) -> Iterator[Notice]:
    """The repository's own class for this model, which transformers runs only with trust_remote_code."""
    classes = checkpoint.config.get("auto_map")
    named = classes.get("AutoModelForCausalLM") if isinstance(classes, dict) else None
    if named is not None and checkpoint.config.get("model_type"):
        yield Notice(
            "config.json",
            "left out",
            f"the repository's own class {_shown(named)} is not run; the model is built as the architecture "
            f"'{checkpoint.config['model_type']}', as transformers does without trust_remote_code",
        )


FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})


def _embeddings_of_a_decoder(checkpoint: Checkpoint) -> Iterator[Notice]:
    outer = checkpoint.whole or checkpoint.config
    names = outer.texts("architectures")
    if pools(checkpoint.folder) and task_of(names, outer.text("model_type", "")) != FEATURE_EXTRACTION:
        yield Notice(
            "folder",
            "chosen",
            f"{MODULES} pools the hidden states of tokens, so this is a model of embeddings, though config.json names "
            f"{', '.join(names) or 'no class'}; a head takes no part in it",
            f"to convert it as the class that config.json names, move {MODULES} out of the folder",
        )


RULES: tuple[Callable[[Checkpoint], Iterator[Notice]], ...] = (
    weight_file_notices,
    _adapter,
    _two_quantizations,
    _quantization_left_over,
    _two_end_tokens,
    _end_of_the_tokenizer,
    _another_type,
    _two_rotary_sections,
    _two_values_for_rotary_embedding,
    _code_beside,
    _embeddings_of_a_decoder,
)
OF_ANSWERS = (_two_end_tokens, _end_of_the_tokenizer)
"""The rules that count only for models that generate text."""


def _object(path: Path) -> Mapping[str, Any]:
    """The content of a JSON file; empty where it is missing or no object."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _token_number(folder: Path, text: str) -> int | None:
    """The number of a special token in tokenizer.json; None where it is not found. The file is searched, not parsed."""
    try:
        content = (folder / "tokenizer.json").read_bytes()
    except OSError:
        return None
    for form in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
        entry = rb'"id"\s*:\s*(\d+)\s*,\s*"content"\s*:\s*' + re.escape(form.encode())
        if found := re.search(entry, content):
            return int(found[1])
    return None


def _ids(value: Any) -> list[int]:
    """The token ids of one, or of a list, also written as 2.0."""
    listed = value if isinstance(value, list) else [value]
    return [int(each) for each in listed if isinstance(each, int) or (isinstance(each, float) and each.is_integer())]


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
