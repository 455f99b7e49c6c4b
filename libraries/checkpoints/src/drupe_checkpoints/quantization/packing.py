"""How the matrices of a checkpoint are packed, or why they cannot be read: `quantization_config`, or another file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from drupe.api import ModelError, Notice
from drupe_checkpoints.configuration import Configuration
from drupe_checkpoints.dialects import COMPRESSED_TENSORS, FLOATS, FP8_BY_BLOCK, GPTQ_OR_AWQ, are_floats, dialect_of
from drupe_checkpoints.dialects import MLX as MLX_DIALECT
from drupe_checkpoints.quantization.auto_round import auto_round
from drupe_checkpoints.quantization.awq import awq
from drupe_checkpoints.quantization.compressed_tensors import compressed_tensors
from drupe_checkpoints.quantization.gptq import gptq
from drupe_checkpoints.quantization.mlx import mlx
from drupe_checkpoints.quantization.scheme import KEY, START_AGAIN, refused
from drupe_checkpoints.quantization.values import fp8, mxfp4
from drupe_packed.packing import Packing

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
                cure=f"remove {KEY} from {section.path.name} if the numbers are the model's own, as they were trained",
            )
        raise refused(section, what)
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
    raise refused(section, f"weights that bitsandbytes packed are not supported{shown}")


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


READ = frozenset({COMPRESSED_TENSORS, FP8_BY_BLOCK, GPTQ_OR_AWQ, MLX_DIALECT})
"""The dialects that are read where a file says how."""
SYNONYMS: Mapping[str, str] = {"intel/auto-round": "auto-round", "gptqmodel": "gptq", "auto-gptq": "gptq"}
METHODS: Mapping[str, Callable[[Configuration], Packing]] = {
    "auto-round": auto_round,
    "awq": awq,
    "compressed-tensors": compressed_tensors,
    "fbgemm_fp8": fp8,
    "fp8": fp8,
    "gptq": gptq,
    "mlx": mlx,
    "mxfp4": mxfp4,
}
LEAVE_OVER = frozenset({"auto-round", "awq", "bitsandbytes", "gptq", "mlx"})
"""Methods that quantize weights alone, so that weights in floating point show that they were not applied."""
