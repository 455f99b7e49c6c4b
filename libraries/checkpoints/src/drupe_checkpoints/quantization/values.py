"""Values of 4 and 8 bits that are no levels: FP8 with scales, and MXFP4."""

from __future__ import annotations

from drupe_checkpoints.configuration import Configuration
from drupe_checkpoints.quantization.scheme import LONGEST_GROUP
from drupe_packed.packing import MXFP4, SCALED, Packing, Rule


def fp8(section: Configuration) -> Packing:
    """FP8 with a scale for each block; without a size of blocks, for each matrix. Which modules have it, types show."""
    block = section.get("weight_block_size")
    if block is None:
        return Packing(SCALED, (Rule(8, None, symmetric=True, rows=None),))
    return Packing(SCALED, (block_rule(section, "weight_block_size"),))


def block_rule(section: Configuration, key: str) -> Rule:
    sizes = section.numbers(key)
    if len(sizes) != 2 or not all(each.is_integer() and 0 < each <= LONGEST_GROUP for each in sizes):
        raise section.mistake(f"{key} wants two whole numbers, the rows and columns of a block")
    rows, columns = map(int, sizes)
    return Rule(8, columns, symmetric=True, rows=rows)


def mxfp4(section: Configuration) -> Packing:
    """Only the tensors that are stored in blocks are packed, whatever `modules_to_not_convert` says."""
    return Packing(MXFP4, (Rule(4, 32, symmetric=True),))
