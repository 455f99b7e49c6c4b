"""AWQ: AutoAWQ's sections."""

from __future__ import annotations

from drupe.api import counted
from drupe_checkpoints.configuration import Configuration
from drupe_checkpoints.quantization.scheme import bits_of, group_size_of, refused
from drupe_packed.packing import AWQ, Packing, Rule


def awq(section: Configuration) -> Packing:
    version = section.text("version", "gemm").lower()
    if version != "gemm":
        raise refused(section, f"the checkpoint's AWQ layout '{version}' (version) is not supported; supported: gemm")
    bits = bits_of(section, "bits" if "bits" in section else "w_bit")
    if bits != 4:
        raise refused(section, f"AWQ with {counted(bits, 'bit')} is not supported; supported: 4 bits")
    group_size = group_size_of(section, "group_size" if "group_size" in section else "q_group_size")
    return Packing(AWQ, (Rule(bits, group_size, symmetric=False),))
