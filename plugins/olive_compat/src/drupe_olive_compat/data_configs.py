"""DataConfig: a data config of a file, in either dialect, and the data set that it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe.api import Record, field
from drupe_olive_compat.answers import Answer, is_off, missing
from drupe_olive_compat.chain import Chain
from drupe_olive_compat.values import a_text

FULL_NAMES: Mapping[str, str] = {
    "c4": "allenai/c4",
    "cnn_dailymail": "abisee/cnn_dailymail",
    "glue": "nyu-mll/glue",
    "gsm8k": "openai/gsm8k",
    "imdb": "stanfordnlp/imdb",
    "openwebtext": "Skylion007/openwebtext",
    "squad": "rajpurkar/squad",
    "wikitext": "Salesforce/wikitext",
    "xsum": "EdinburghNLP/xsum",
}
"""Short names of data sets, which the hub no longer serves."""
FORMATS = ("csv", "json", "parquet", "text")
"""Names that stand for a file's format instead of a data set."""
READING = ("text_cols", "input_cols", "type", "params", "model_name", "trust_remote_code")
"""Options of processing that have no line of their own."""
A_FILE = "name one file in data_files, or OWNER/NAME of a data set in data_name"


class DataConfig(Record):
    """loading, processing: the options of the two components. reference: NAME[:CONFIGURATION], or a file.

    Both are "" where it names no data. split: "" for a file. lacks: why its data cannot be had, or None.
    """

    name: str
    loading: Mapping[str, Any] = field(default_factory=dict)
    processing: Mapping[str, Any] = field(default_factory=dict)
    reference: str = ""
    split: str = ""
    lacks: Answer | None = None

    @property
    def columns(self) -> list[str]:
        """The columns with the text."""
        columns = self.processing.get("text_cols") or ["text"]
        return [str(each) for each in columns] if isinstance(columns, list) else [str(columns)]


def data_config(chain: Chain, value: Any, cure: str) -> DataConfig:
    """The data config that an option of a pass names, or holds. cure: what to do where a Python file reads the data."""
    name = str(value.get("name", "inline") if isinstance(value, Mapping) else value)
    config = value if isinstance(value, Mapping) else chain.data.get(name)
    chain.read.add(name)
    if config is None:
        return DataConfig(
            name, lacks=missing(f"there is no data config '{name}' in the file", "add it to data_configs")
        )
    if config.get("user_script"):
        what = f"the data config {name} is read by the Python file {config['user_script']}, which Drupe does not run"
        return DataConfig(name, lacks=missing(what, cure))
    loading = _component(config, "load_dataset", "load_dataset_config")
    processing = _component(config, "pre_process_data", "pre_process_data_config")
    reference, split, lacks = _data_set(loading, f"data_configs.{name}")
    return DataConfig(name, loading, processing, reference, split, lacks)


def parameters(part: Any) -> Mapping[str, Any]:
    """The options of a component, which may stand in `params`."""
    if not isinstance(part, Mapping):
        return {}
    inner = part.get("params")
    return {**part, **(inner if isinstance(inner, Mapping) else {})}


def _component(config: Mapping[str, Any], older: str, key: str) -> Mapping[str, Any]:
    """The options of a component. Before Olive 0.6 they stood in `components` and `params_config`, by another name."""
    shared = config.get("params_config")
    shared = shared if isinstance(shared, Mapping) else {}
    held, own = config.get("components"), shared.get("component_kwargs")
    parts = (
        {each: shared[each] for each in _SHARED[older] if each in shared},
        own.get(older) if isinstance(own, Mapping) else None,
        held.get(older) if isinstance(held, Mapping) else None,
        config.get(key),
    )
    return {name: value for part in parts for name, value in parameters(part).items() if value is not None}


_SHARED: Mapping[str, tuple[str, ...]] = {
    "load_dataset": ("data_name", "subset", "split", "data_dir", "data_files", "col_filters"),
    "pre_process_data": ("input_cols", "label_cols", "max_samples"),
}
"""What older files have in `params_config` for all components, by the component that reads it."""


def _data_set(loading: Mapping[str, Any], place: str) -> tuple[str, str, Answer | None]:
    """The data set with its configuration, or the file; the split; and what of it is not done."""
    name, files = str(loading.get("data_name") or ""), loading.get("data_files")
    if not is_off(loading.get("col_filters")):
        return "", "", missing("rows of a data set that are chosen by a column's value", "write them to a file")
    if isinstance(files, list) and len(files) == 1:
        (files,) = files
    if name in FORMATS and isinstance(files, str):
        return files, "", None
    if not is_off(files) or not is_off(loading.get("data_dir")):
        return "", "", missing("some files of a data set", A_FILE)
    reference = FULL_NAMES.get(name, name)
    if name and "/" not in reference:
        return "", "", missing(f"the data set '{name}', whose owner is not known", A_FILE)
    reference += f":{loading['subset']}" if loading.get("subset") else ""
    return reference, a_text(loading.get("split") or "validation", f"{place}.split"), None
