"""MLX's affine quantization."""

from __future__ import annotations

from drupe.api import replace
from drupe_checkpoints.configuration import Configuration
from drupe_checkpoints.quantization.scheme import bits_of, group_size_of, refused
from drupe_packed.packing import LINEAR, MLX, MLX_BITS, Packing, Rule

SCHEME = ("bits", "group_size", "mode")
"""The keys that hold for all modules; others name a module."""


def mlx(section: Configuration) -> Packing:
    """MLX's affine quantization; modules with a scheme of their own, or with false, stand beside the common keys."""
    named = [name for name in section if name not in SCHEME]
    rules = [_mlx_module(section, name) for name in named if isinstance(section[name], dict) or section[name] is False]
    return Packing(MLX, (*rules, _mlx_scheme(section, (LINEAR,))))


def _mlx_module(section: Configuration, name: str) -> Rule:
    own = section.section(name) if section[name] is not False else None
    if own is None:
        return replace(_mlx_scheme(section, (name,)), unpacked=True)
    return _mlx_scheme(own.with_defaults({"mode": section.get("mode")}), (name,))


def _mlx_scheme(section: Configuration, targets: tuple[str, ...]) -> Rule:
    mode = section.text("mode", "affine")
    if mode != "affine":
        raise refused(section, f"MLX's quantization '{mode}' (mode) is not supported; supported: affine")
    bits = bits_of(section, "bits", MLX_BITS)
    return Rule(bits, group_size_of(section, "group_size"), symmetric=True, targets=targets)
