"""The element types of GGUF files: their numbers, names and sizes. Imports no numpy, so describing a file is fast."""

from __future__ import annotations

from drupe.api import Record


class GgmlType(Record):
    """An element type. values: in a block. nbytes: of a block. Both are 0 for a type that is not supported."""

    name: str
    values: int = 0
    nbytes: int = 0


TYPES = {
    0: GgmlType("F32", 1, 4),
    1: GgmlType("F16", 1, 2),
    2: GgmlType("Q4_0", 32, 18),
    3: GgmlType("Q4_1", 32, 20),
    8: GgmlType("Q8_0", 32, 34),
    14: GgmlType("Q6_K", 256, 210),
    30: GgmlType("BF16", 1, 2),
    **{
        number: GgmlType(name)
        for number, name in {
            6: "Q5_0", 7: "Q5_1", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 15: "Q8_K", 16: "IQ2_XXS",
            17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8",
            25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
        }.items()
    },
}  # fmt: skip
READ = tuple(kind.name for kind in TYPES.values() if kind.nbytes)
