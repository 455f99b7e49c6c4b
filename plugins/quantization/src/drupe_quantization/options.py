"""The options of quantization and calibration."""

from __future__ import annotations

from drupe.api import Option

_WEIGHTS, _TEXT = "Quantization", "Calibration"
_ON_THE_LADDER = "--quality fast, balanced or best"
_CALIBRATES = "--quality best, or --prepare smooth, scale or weigh"

OPTIONS = [
    Option(
        "quality",
        "fast (round to nearest), balanced (error search, more bits for sensitive matrices) or best (calibrated).",
        choices=("fast", "balanced", "best"),
        group=_WEIGHTS,
        default="balanced",
    ),
    Option(
        "method",
        "Quantization method for 4 and 2 bits; overrides the one of --quality.",
        choices=("rtn", "search", "hqq"),
        group=_WEIGHTS,
        needs="--precision int4 and --quality fast or balanced",
    ),
    Option(
        "prepare",
        "Change the weights before quantizing, so that less quality is lost; may be given several times.",
        choices=("rotate", "smooth", "scale", "weigh"),
        multiple=True,
        group=_WEIGHTS,
        needs=_ON_THE_LADDER,
    ),
    Option(
        "block_size",
        "How many weights share a scale: 16 to 256.",
        type=int,
        group=_WEIGHTS,
        default="chosen for each matrix",
    ),
    Option(
        "symmetric",
        "Quantize without or with zero points.",
        type=bool,
        off="asymmetric",
        group=_WEIGHTS,
        default="asymmetric",
    ),
    Option(
        "head_bits",
        "Bits of embedding and head: 2, 4 or 8.",
        type=int,
        group=_WEIGHTS,
        default="as the budget of bytes allows",
    ),
    Option(
        "target_size",
        "Largest size of graph and weights, such as 250MB.",
        group=_WEIGHTS,
        default="1.05 times plain 4 bits",
        needs=f"--precision int4 and {_ON_THE_LADDER}",
    ),
    Option(
        "bits_per_weight",
        "Largest size as bits for each weight, scales and zero points included.",
        type=float,
        group=_WEIGHTS,
        needs=f"--precision int4 and {_ON_THE_LADDER}",
    ),
    Option(
        "calibration_data",
        "The text to calibrate with: a file, folder or data set.",
        group=_TEXT,
        default="Python's own documentation and modules",
        needs=_CALIBRATES,
    ),
    Option("calibration_sequences", "How many sequences of the text to use.", type=int, group=_TEXT, needs=_CALIBRATES),
    Option("calibration_length", "How many tokens each sequence has.", type=int, group=_TEXT, needs=_CALIBRATES),
    Option("calibration_seed", "A number that chooses pieces of the text.", type=int, group=_TEXT, needs=_CALIBRATES),
]
