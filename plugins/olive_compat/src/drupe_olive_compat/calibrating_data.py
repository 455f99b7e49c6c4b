"""The text to calibrate with: a data config of Olive as options of Drupe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe_olive_compat.answers import OFF, Answer, changed, kept, left_out, missing
from drupe_olive_compat.chain import Chain

FULL_NAMES = {"wikitext": "Salesforce/wikitext"}
"""Short names of data sets, which the hub no longer serves."""
AMOUNTS = {"max_samples": "calibration_sequences", "max_seq_len": "calibration_length"}
"""What says how much of the text is used, and the option that says the same."""
_HOW = ("strategy", "joiner", "add_special_tokens", "pad_to_max_len", "padding_side", "drop_short_sequences", "stride",
        "use_attention_mask", "random_seed", "random_retries", "processing_batch_size")  # fmt: skip
_READING = ("text_cols", "input_cols", "type", "params", "model_name", "trust_remote_code")


def calibration(chain: Chain, value: Any, place: str) -> Answer:
    """The data to calibrate with: a data set of the hub, where its data config needs no code."""
    if value is None:
        return OFF
    name = str(value.get("name", "inline") if isinstance(value, Mapping) else value)
    config = value if isinstance(value, Mapping) else chain.data.get(name)
    chain.read.add(name)
    if config is None:
        return missing(f"there is no data config '{name}' in the file", "add it to data_configs")
    if config.get("user_script"):
        what = f"the data config {name} is read by the Python file {config['user_script']}, which Drupe does not run"
        return missing(what, "write the text to a file, and name it as the option calibration_data")
    loading, processing = _loading(config), _parameters(config.get("pre_process_data_config"))
    for key, each in processing.items():
        if key not in _READING:
            chain.ledger.say(f"data_configs.{name}.{key}", _processed(chain, key, each, place))
    if not loading.get("data_name"):
        return changed(f"the data config {name} names no data set of the hub; calibrated on Drupe's own text")
    chain.options["calibration_data"] = _reference(loading, processing)
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


def _loading(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """How a data set is loaded; before Olive 0.6 it stood in `components` and `params_config`."""
    components = config.get("components")
    older = components.get("load_dataset") if isinstance(components, Mapping) else None
    parts = (config.get("params_config"), older, config.get("load_dataset_config"))
    return {key: value for part in parts for key, value in _parameters(part).items()}


def _parameters(part: Any) -> Mapping[str, Any]:
    if not isinstance(part, Mapping):
        return {}
    inner = part.get("params")
    return {**part, **(inner if isinstance(inner, Mapping) else {})}


def _reference(loading: Mapping[str, Any], processing: Mapping[str, Any]) -> str:
    """A data set as Drupe's options name one: OWNER/NAME:CONFIGURATION@SPLIT#FIELD."""
    name = str(loading["data_name"])
    reference = FULL_NAMES.get(name, name)
    split = str(loading.get("split") or "train").partition("[")[0]
    columns = processing.get("text_cols") or ["text"]
    reference += f":{loading['subset']}" if loading.get("subset") else ""
    return f"{reference}@{split}#{columns[0] if isinstance(columns, list) else columns}"
