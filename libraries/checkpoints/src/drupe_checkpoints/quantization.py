"""How the matrices of a checkpoint are packed, or why they cannot be read: `quantization_config`, or another file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from drupe.api import ModelError, Notice, counted
from drupe_checkpoints.configuration import Configuration
from drupe_checkpoints.dialects import COMPRESSED_TENSORS, FLOATS, FP8_BY_BLOCK, GPTQ_OR_AWQ, are_floats, dialect_of
from drupe_checkpoints.dialects import MLX as MLX_DIALECT
from drupe_packed.packing import (
    AWQ,
    BITS,
    GPTQ,
    GPTQ_V2,
    LINEAR,
    MLX,
    MLX_BITS,
    MXFP4,
    PACK_QUANTIZED,
    SCALED,
    Packing,
    Rule,
)

KEY = "quantization_config"
KEYS = (KEY, "quantization")
"""The sections of config.json; the second one is MLX's."""
FILES: Mapping[str, str] = {
    "quantize_config.json": "gptq",
    "quant_config.json": "awq",
    "quantization_config.json": "auto-round",
    "hf_quant_config.json": "modelopt",
}
"""Files that say it where config.json does not, with the method that each is of where it names none."""
FORMS: tuple[tuple[str, str], ...] = (
    ("load_in_4bit", "bitsandbytes"),
    ("load_in_8bit", "bitsandbytes"),
    ("config_groups", "compressed-tensors"),
    ("packing_format", "auto-round"),
    ("w_bit", "awq"),
    ("desc_act", "gptq"),
    ("sym", "gptq"),
)
"""The method of a section that does not name it, by a key of it; the first that is there counts."""
START_AGAIN = "use the checkpoint that it was quantized from, in float16, bfloat16 or float32"
LONGEST_GROUP = 1 << 20
Types = Mapping[str, str] | None
"""The type of each stored tensor by its name; None where they are not known yet."""


def packing_of(config: Configuration, folder: Path, types: Types) -> Packing | None:
    """How the checkpoint is packed; None where it is not quantized, also if a file says so that was left over.

    Raises ModelError for a method, or a variant of one, that is not supported, and for weights that are quantized
    although nothing says how.
    """
    section = _section(config, folder, types)
    if section is None:
        if types is not None and (found := dialect_of(types)):
            raise _unsaid(config, *found)
        return None
    method = _method(section, types)
    if _left_over(method, types):
        return None
    if method == "bitsandbytes":
        _refuse_bitsandbytes(section, types)
        return None
    if method not in METHODS:
        what = f"the checkpoint's quant_method '{method}' is not supported; supported: {', '.join(METHODS)}"
        if types is not None and set(types.values()) <= FLOATS:
            raise ModelError(
                f"{what}; its weights are in floating point",
                where=section.path,
                cure="remove the section from config.json if the numbers are the model's own, as they were trained",
            )
        raise _refused(section, what)
    return METHODS[method](section)


def left_over_notices(config: Configuration, folder: Path, types: Types) -> Iterator[Notice]:
    """The notice on a quantization that the weights do not have."""
    stated = {**{name: config.get(name) for name in KEYS}, **{name: (folder / name).is_file() for name in FILES}}
    names = [name for name, there in stated.items() if there]
    if not names or types is None or not are_floats(types):
        return
    section = _section(config, folder, types) or Configuration(folder / names[0], {})
    method = FILES[names[0]] if names[0] in FILES else _method(section, types)
    if method in LEAVE_OVER:
        yield Notice(
            names[0] if names[0] in FILES else config.path.name,
            "has no effect",
            f"{names[0]} says that {method} quantized the weights, but they are in floating point and are used "
            "as they are; transformers would quantize them again, or look for packed ones",
            f"remove {names[0]} so that other programs use them as well",
        )


def _section(config: Configuration, folder: Path, types: Types) -> Configuration | None:
    """What says how the weights are quantized. config.json counts before other files, as in transformers."""
    for key in KEYS:
        if found := config.section(key):
            return found
    if types is not None and are_floats(types):
        return None
    for name, method in FILES.items():
        if (folder / name).is_file():
            found = Configuration.read(folder / name)
            return Configuration(found.path, {"quant_method": method, **found})
    return None


def _method(section: Configuration, types: Types) -> str:
    """transformers' name for the method. Raises ModelError where there is none and no key gives it away."""
    guessed = next((method for key, method in FORMS if key in section), None)
    found = dialect_of(types) if types is not None else None
    if guessed is None and "bits" in section and (found is None or found[0] == MLX_DIALECT):
        guessed = "mlx"
    if guessed is None and section.get("quant_method") is None:
        raise ModelError(
            "the section that says how the weights are quantized does not name the method, and none of its keys gives "
            "it away",
            where=section.path,
            cure=f'add "quant_method", such as "gptq" or "awq"; it is one of {", ".join(METHODS)}',
        )
    stated = section.text("quant_method", guessed)
    return SYNONYMS.get(stated, stated)


def _left_over(method: str, types: Types) -> bool:
    """Whether no tensor is quantized although the method quantizes nothing but weights."""
    return method in LEAVE_OVER and types is not None and are_floats(types)


def _refuse_bitsandbytes(section: Configuration, types: Types) -> None:
    """Raise ModelError for weights that bitsandbytes packed. It packs when a model is loaded, so it may not have."""
    if types is None and not section.get("quant_method"):
        return
    found = dialect_of(types) if types is not None else None
    shown = f" (the tensor {found[1]})" if found else ""
    raise _refused(section, f"weights that bitsandbytes packed are not supported{shown}")


def _unsaid(config: Configuration, dialect: str, example: str) -> ModelError:
    if dialect not in READ:
        return ModelError(
            f"weights that are quantized by {dialect} are not supported (the tensor {example})",
            where=config.path,
            cure=START_AGAIN,
        )
    return ModelError(
        f"the weights are packed by {dialect} (the tensor {example}), but no file says how",
        where=config.path,
        cure=f"download the file that says it: config.json with its {' or '.join(KEYS)}"
        + ("" if dialect == MLX_DIALECT else f", or {' or '.join(list(FILES)[:2])} beside it"),
    )


def _gptq(section: Configuration) -> Packing:
    layout = section.text("checkpoint_format", section.text("format", GPTQ))
    if layout not in (GPTQ, GPTQ_V2) or section.flag("is_marlin_format", False):
        raise _refused(
            section, f"the checkpoint's GPTQ format '{layout}' is not supported; supported: gptq and gptq_v2"
        )
    _refuse_words(section)
    if section.get("adapter"):
        raise _refused(section, "GPTQ with an adapter that corrects its errors (EoRA) is not supported")
    rule = Rule(
        _bits(section, "bits"),
        _group_size(section, "group_size"),
        section.flag("sym", True),
        section.flag("desc_act", False),
    )
    dynamic = section.section("dynamic") or Configuration(section.path, {})
    return Packing(layout, (*(_dynamic(dynamic, pattern, rule) for pattern in dynamic), rule))


def _dynamic(dynamic: Configuration, pattern: str, base: Rule) -> Rule:
    """The rule of one of GPTQModel's patterns: "-:" for modules in floating point, "+:" or nothing for own schemes."""
    target = (f"re:{pattern.removeprefix('-:').removeprefix('+:')}",)
    _refuse_pattern(target[0], dynamic.path)
    if pattern.startswith("-:"):
        return dataclasses.replace(base, targets=target, unpacked=True)
    own = dynamic.section(pattern) or Configuration(dynamic.path, {})
    _refuse_words(own)
    if other := sorted(own.keys() - GPTQ_SCHEME - GPTQ_EFFORT):
        raise _refused(dynamic, f"GPTQ with {', '.join(other)} for some modules ('dynamic') is not supported")
    return Rule(
        _bits(own, "bits") if "bits" in own else base.bits,
        _group_size(own, "group_size") if "group_size" in own else base.group_size,
        own.flag("sym", base.symmetric),
        own.flag("desc_act", base.reordered),
        target,
    )


def _refuse_words(section: Configuration) -> None:
    if section.text("pack_dtype", "int32") != "int32":
        raise _refused(section, f"GPTQ in words of {section['pack_dtype']} is not supported; supported: int32")


def _awq(section: Configuration) -> Packing:
    version = section.text("version", "gemm").lower()
    if version != "gemm":
        raise _refused(section, f"the checkpoint's AWQ layout '{version}' is not supported; supported: gemm")
    bits = _bits(section, "bits" if "bits" in section else "w_bit")
    if bits != 4:
        raise _refused(section, f"AWQ with {counted(bits, 'bit')} is not supported; supported: 4 bits")
    group_size = _group_size(section, "group_size" if "group_size" in section else "q_group_size")
    return Packing(AWQ, (Rule(bits, group_size, symmetric=False),))


def _auto_round(section: Configuration) -> Packing:
    """AutoRound's own format, which packs as GPTQ or AWQ do: https://github.com/intel/auto-round."""
    kind = section.text("data_type", "int")
    if kind != "int" or section.integer("act_bits", 16) < 16:
        raise _refused(
            section, f"AutoRound with weights of type '{kind}' or with quantized activations is not supported"
        )
    if rotated := next((key for key in ("spinquant_config", "rotation_config") if section.get(key)), None):
        raise _refused(section, f"AutoRound with rotations ({rotated}) is not supported")
    layout = section.text("packing_format", "auto_round:auto_gptq").removeprefix("auto_round:")
    if layout not in AUTO_ROUND:
        raise _refused(
            section,
            f"AutoRound's format '{layout}' is not supported; supported: {', '.join(AUTO_ROUND)}",
        )
    layout = AUTO_ROUND[layout]
    symmetric = section.flag("sym", True) and layout != AWQ
    rule = Rule(_bits(section, "bits"), _group_size(section, "group_size"), symmetric)
    own = section.section("extra_config") or Configuration(section.path, {})
    return Packing(layout, (*(_own_scheme(own, name, rule) for name in own), rule))


def _own_scheme(modules: Configuration, name: str, base: Rule) -> Rule:
    """The rule of a module, or of the modules that a regular expression finds, in AutoRound's extra_config."""
    own = modules.section(name) or Configuration(modules.path, {})
    target = (name,) if re.fullmatch(r"[\w.]+", name) else (f"re:.*(?:{name})",)
    _refuse_pattern(target[0], modules.path)
    if own.get("bits") is not None and own.integer("bits") >= 16:
        return dataclasses.replace(base, targets=target, unpacked=True)
    return Rule(
        _bits(own, "bits") if "bits" in own else base.bits,
        _group_size(own, "group_size") if "group_size" in own else base.group_size,
        own.flag("sym", base.symmetric) and base.symmetric,
        targets=target,
    )


def _mlx(section: Configuration) -> Packing:
    """MLX's affine quantization; modules with a scheme of their own, or with false, stand beside the common keys."""
    rules = [
        _mlx_module(section, name) for name in section if isinstance(section[name], dict) or section[name] is False
    ]
    return Packing(MLX, (*rules, _mlx_scheme(section, (LINEAR,))))


def _mlx_module(section: Configuration, name: str) -> Rule:
    own = section.section(name) if section[name] is not False else None
    if own is None:
        return dataclasses.replace(_mlx_scheme(section, (name,)), unpacked=True)
    return _mlx_scheme(Configuration(section.path, {"mode": section.get("mode"), **own}), (name,))


def _mlx_scheme(section: Configuration, targets: tuple[str, ...]) -> Rule:
    mode = section.text("mode", "affine")
    if mode != "affine":
        raise _refused(section, f"MLX's quantization '{mode}' is not supported; supported: affine")
    bits = _bits(section, "bits", MLX_BITS)
    return Rule(bits, _group_size(section, "group_size"), symmetric=True, targets=targets)


def _compressed_tensors(section: Configuration) -> Packing:
    groups = section.section("config_groups")
    if not groups:
        raise _refused(section, f"{KEY} of the method compressed-tensors has no config_groups")
    for key in ("kv_cache_scheme", "sparsity_config", "transform_config"):
        if section.get(key):
            raise _refused(section, f"compressed-tensors with a {key} is not supported")
    layouts = {_layout(section, groups, name) for name in groups}
    if layouts <= EIGHT_BITS:
        rules = [_of_eight_bits(section, _weights(groups, name), _layout(section, groups, name)) for name in groups]
        if len(set(rules)) > 1:
            raise _refused(section, "compressed-tensors with weights of 8 bits in several schemes is not supported")
        return Packing(SCALED, (rules[0],))
    return Packing(PACK_QUANTIZED, tuple(_group(section, groups, name) for name in groups))


def _layout(section: Configuration, groups: Configuration, name: str) -> str:
    group = groups.section(name) or Configuration(groups.path, {})
    return group.text("format", section.text("format", ""))


def _weights(groups: Configuration, name: str) -> Configuration:
    group = groups.section(name) or Configuration(groups.path, {})
    return group.section("weights") or Configuration(groups.path, {})


def _mxfp4(section: Configuration) -> Packing:
    """Only the tensors that are stored in blocks are packed, whatever `modules_to_not_convert` says."""
    return Packing(MXFP4, (Rule(4, 32, symmetric=True),))


def _fp8(section: Configuration) -> Packing:
    """FP8 with a scale for each block; without a size of blocks, for each matrix. Which modules have it, types show."""
    block = section.get("weight_block_size")
    if block is None:
        return Packing(SCALED, (Rule(8, None, symmetric=True, rows=None),))
    return Packing(SCALED, (_block_rule(section, "weight_block_size"),))


def _block_rule(section: Configuration, key: str) -> Rule:
    sizes = section.numbers(key)
    if len(sizes) != 2 or not all(each.is_integer() and 0 < each <= LONGEST_GROUP for each in sizes):
        raise section.mistake(f"{key} wants two whole numbers, the rows and columns of a block")
    rows, columns = map(int, sizes)
    return Rule(8, columns, symmetric=True, rows=rows)


def _of_eight_bits(section: Configuration, weights: Configuration, layout: str) -> Rule:
    """The rule of a compressed-tensors group whose weights are values of 8 bits, not packed."""
    if _bits(weights, "num_bits") != 8 or not weights.flag("symmetric", True):
        raise _refused(
            section, f"the compressed-tensors format '{layout}' is supported for symmetric weights of 8 bits"
        )
    strategy = weights.text("strategy", "channel")
    if strategy == "block":
        return _block_rule(weights, "block_structure")
    if strategy not in ("tensor", "channel"):
        raise _refused(section, f"the scale strategy '{strategy}' is not supported for the format '{layout}'")
    return Rule(8, None, symmetric=True, rows=None if strategy == "tensor" else 1)


def _group(section: Configuration, groups: Configuration, name: str) -> Rule:
    group = groups.section(name) or Configuration(groups.path, {})
    layout, weights = _layout(section, groups, name), _weights(groups, name)
    if layout != PACK_QUANTIZED:
        raise _refused(
            section,
            f"the compressed-tensors format '{layout}' is not supported beside others; supported: {PACK_QUANTIZED}, "
            f"or alone {', '.join(sorted(EIGHT_BITS))}",
        )
    if weights.text("type", "int") != "int":
        raise _refused(section, f"quantized weights of type {weights['type']} are not supported; supported: int")
    strategy = weights.text("strategy", "group" if weights.get("group_size") else "channel")
    if strategy not in ("group", "channel"):
        raise _refused(section, f"the scale strategy '{strategy}' is not supported; supported: group and channel")
    return Rule(
        _bits(weights, "num_bits"),
        _group_size(weights, "group_size") if strategy == "group" else None,
        weights.flag("symmetric", True),
        bool(weights.get("actorder")),
        _targets(group),
    )


def _targets(group: Configuration) -> tuple[str, ...]:
    targets = group.texts("targets") or (LINEAR,)
    for target in targets:
        _refuse_pattern(target, group.path)
    return targets


def _refuse_pattern(target: str, path: Path) -> None:
    """Raise ModelError for a target that is no regular expression."""
    try:
        re.compile(target.removeprefix("re:"))
    except re.error as error:
        raise ModelError(
            f"the target '{target}' in {KEY} is not a regular expression: {error}",
            where=path,
            cure="correct the pattern in the file; it is matched with the names of modules",
        ) from error


def _bits(section: Configuration, key: str, known: tuple[int, ...] = BITS) -> int:
    bits = section.integer(key)
    if bits not in known:
        raise _refused(
            section, f"weights of {counted(bits, 'bit')} are not supported; supported: {', '.join(map(str, known))}"
        )
    return bits


def _group_size(section: Configuration, key: str) -> int | None:
    """How many values share a scale; None for -1, which stands for a whole row."""
    return None if section.get(key) == -1 else section.integer(key, most=LONGEST_GROUP)


def _refused(section: Configuration, what: str) -> ModelError:
    return ModelError(what, where=section.path, cure=START_AGAIN)


EIGHT_BITS = frozenset({"float-quantized", "int-quantized", "naive-quantized"})
"""compressed-tensors' formats of values of 8 bits that are not packed."""
READ = frozenset({COMPRESSED_TENSORS, FP8_BY_BLOCK, GPTQ_OR_AWQ, MLX_DIALECT})
"""The dialects that are read where a file says how."""
SYNONYMS: Mapping[str, str] = {"intel/auto-round": "auto-round", "gptqmodel": "gptq", "auto-gptq": "gptq"}
AUTO_ROUND: Mapping[str, str] = {"auto_gptq": GPTQ, "auto_awq": AWQ}
"""AutoRound's formats that are read, and whose layout each has."""
GPTQ_SCHEME = frozenset({"bits", "group_size", "sym", "desc_act", "pack_dtype"})
"""The keys of a GPTQ section that say how modules are packed."""
GPTQ_EFFORT = frozenset(
    {
        "act_group_aware", "damp_auto_increment", "damp_percent", "fail_safe", "failsafe", "gptaq", "hyb_act", "mse",
        "mock_quantization", "offload_to_disk", "static_groups", "true_sequential", "v2", "v2_alpha",
    }
)  # fmt: skip
"""Those that say how levels were found, which changes nothing in how they are read."""
METHODS: Mapping[str, Callable[[Configuration], Packing]] = {
    "auto-round": _auto_round,
    "awq": _awq,
    "compressed-tensors": _compressed_tensors,
    "fbgemm_fp8": _fp8,
    "fp8": _fp8,
    "gptq": _gptq,
    "mlx": _mlx,
    "mxfp4": _mxfp4,
}
LEAVE_OVER = frozenset({"auto-round", "awq", "bitsandbytes", "gptq", "mlx"})
"""Methods that quantize weights alone, so that weights in floating point show that they were not applied."""
