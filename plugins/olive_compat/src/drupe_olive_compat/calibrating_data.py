"""The text to calibrate with: a data config of Olive as options of Drupe."""

from __future__ import annotations

from typing import Any

from drupe_olive_compat.answers import OFF, Answer, changed, kept, left_out
from drupe_olive_compat.chain import Chain
from drupe_olive_compat.data_configs import READING, DataConfig, data_config

AMOUNTS = {"max_samples": "calibration_sequences", "max_seq_len": "calibration_length"}
"""What says how much of the text is used, and the option that says the same."""
_HOW = ("strategy", "joiner", "add_special_tokens", "pad_to_max_len", "padding_side", "drop_short_sequences", "stride",
        "use_attention_mask", "random_seed", "random_retries", "processing_batch_size")  # fmt: skip


def calibration(chain: Chain, value: Any, place: str) -> Answer:
    """The data to calibrate with: a data set of the hub, where its data config needs no code."""
    if value is None:
        return OFF
    data = data_config(chain, value, "write the text to a file, and name it as the option calibration_data")
    for key, each in data.processing.items():
        if key not in READING:
            chain.ledger.say(f"data_configs.{data.name}.{key}", _processed(chain, key, each, place))
    if data.lacks is not None:
        return data.lacks
    if not data.reference:
        return changed(f"the data config {data.name} names no data set of the hub; calibrated on Drupe's own text")
    chain.options["calibration_data"] = _reference(data)
    chain.stated["calibration_data"] = place
    return kept(f"calibrated on {chain.options['calibration_data']}")


def _processed(chain: Chain, key: str, value: Any, place: str) -> Answer:
    """What becomes of an option that says how the text is cut into sequences."""
    if key in AMOUNTS and isinstance(value, int) and value > 0:
        chain.options[AMOUNTS[key]], chain.stated[AMOUNTS[key]] = value, place
        return kept(f"{AMOUNTS[key]}: {value}")
    if key in _HOW:
        return changed("pieces of the joined text, which the option calibration_seed chooses")
    return left_out("the text is read as it is")


def _reference(data: DataConfig) -> str:
    """A data set as Drupe's options name one: OWNER/NAME:CONFIGURATION@SPLIT#FIELD, of a split as a whole."""
    split = data.split.partition("[")[0]
    return f"{data.reference}{f'@{split}' if split else ''}#{data.columns[0]}"
