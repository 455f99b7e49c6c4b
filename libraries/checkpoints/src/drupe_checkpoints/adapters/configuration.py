"""What an adapter_config.json says: the method, its scaling for each module, and keys that ask for something else."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import ModelError, Record, nearest, replace
from drupe_checkpoints.configuration import Configuration
from drupe_checkpoints.wording import listed, shown

CONFIG = "adapter_config.json"
METHODS: Mapping[str, str] = {"LORA": "LoRA", "LOHA": "LoHa", "LOKR": "LoKr"}
"""The methods that are merged, as peft_type spells them, with their names."""
PARAMETERS = "target_parameters"
"""The key that names tensors of no module of their own, such as those of all experts."""
MERGE_ELSEWHERE = "merge it into its base model first: peft's merge_and_unload(), then save_pretrained()"
AGAIN = "save the adapter again with peft's save_pretrained()"

USED = frozenset({
    "alpha", "alpha_pattern", "base_model_name_or_path", "ensure_weight_tying", "lora_alpha", "peft_type", "r",
    "rank_pattern", PARAMETERS, "trainable_token_indices", "use_dora", "use_rslora",
})  # fmt: skip
"""Keys that the merged weights depend on."""
TOLD_BY_TENSORS = frozenset({
    "bias", "exclude_modules", "fan_in_fan_out", "layers_pattern", "layers_to_transform", "lora_bias",
    "modules_to_save", "target_modules",
})  # fmt: skip
"""Keys that say which tensors the adapter has. The tensors say it too; `fan_in_fan_out` follows from the model."""
OF_TRAINING = frozenset({
    "auto_mapping", "corda_config", "decompose_both", "decompose_factor", "eva_config", "inference_mode",
    "init_weights", "loftq_config", "lora_dropout", "lora_ga_config", "megatron_config", "megatron_core",
    "module_dropout", "peft_version", "qalora_group_size", "rank_dropout", "rank_dropout_scale", "revision",
    "runtime_config", "task_type", "use_effective_conv2d", "velora_config",
})  # fmt: skip
"""Keys that change the training, not what its tensors mean."""
REFUSED: Mapping[str, str] = {
    "alora_invocation_tokens": "the adapter acts only after certain tokens, so it cannot be merged",
    "arrow_config": "it chooses among several adapters for each token",
    "kasa_config": "KaSA changes the base model's weights as well",
    "layer_replication": "the adapter is for a model with repeated layers",
    "monteclora_config": "its matrices are sampled",
    "use_bdlora": "its matrices are in blocks on a diagonal",
    "use_qalora": "QA-LoRA adds to the zero points of a quantized base",
}
"""Keys that ask for another computation, where they are set, with what they ask for."""
CHANGES_THE_BASE = re.compile(r"pissa|olora|corda|loftq|lora_ga|psoft", re.IGNORECASE)
"""Values of `init_lora_weights` with which training starts from other weights of the base."""
PLAIN = (True, False, None, "gaussian", "orthogonal", "eva", "mica")
"""Values of `init_lora_weights` with which the base stays as it is."""


class AdapterConfiguration(Record):
    """The checked content of adapter_config.json. method: "LORA", "LOHA" or "LOKR"."""

    config: Configuration
    method: str

    @classmethod
    def read(cls, folder: Path) -> AdapterConfiguration:
        """Raises ModelError for an adapter that cannot be merged, and names the key that says so."""
        path = folder / CONFIG
        config = Configuration.read(path)
        method = config.text("peft_type").upper()
        if method not in METHODS:
            raise ModelError(
                f"adapters of the type {shown(config['peft_type'])} are not merged; those that are: "
                f"{', '.join(METHODS.values())}",
                where=path,
                cure=MERGE_ELSEWHERE,
            )
        _refuse_other_computations(config)
        return cls(config, method)

    @property
    def title(self) -> str:
        """The method's name: "rsLoRA", "DoRA"."""
        if self.method != "LORA":
            return METHODS[self.method]
        if self.config.flag("use_dora", False):
            return "DoRA"
        return "rsLoRA" if self.config.flag("use_rslora", False) else "LoRA"

    @property
    def base(self) -> str:
        """The base model that the adapter was trained for, where the file says it."""
        return str(self.config.get("base_model_name_or_path") or "")

    @property
    def ties_weights(self) -> bool:
        return self.config.flag("ensure_weight_tying", False)

    def rank_of(self, module: str) -> int:
        """The rank of a module's adapter; a pattern counts before `r`."""
        rank = self._of_module(module, "rank_pattern", "r", 8)
        if rank != int(rank):
            raise ModelError(f"the rank of {module} is {rank:g}, no whole number", where=self.config.path, cure=AGAIN)
        return int(rank)

    def scale_of(self, module: str) -> float:
        """What the product of a module's matrices is multiplied by."""
        alpha = self._of_module(module, "alpha_pattern", "lora_alpha" if self.method == "LORA" else "alpha", 8)
        rank = self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.config.flag("use_rslora", False) else rank)

    def token_places(self, module: str) -> tuple[int, ...]:
        """The tokens of an embedding that the adapter trains: `trainable_token_indices`, a list or one by name."""
        stated = self.config.get("trainable_token_indices")
        if isinstance(stated, dict):
            names = [name for name in stated if module == name or module.endswith(f".{name}")]
            stated = stated[names[0]] if names else None
        if not isinstance(stated, list) or not all(isinstance(each, int) and each >= 0 for each in stated):
            raise ModelError(
                f"trainable_token_indices is {shown(stated)} for the module {module}",
                where=self.config.path,
                cure=AGAIN,
            )
        return tuple(stated)

    def _of_module(self, module: str, patterns: str, key: str, default: int) -> float:
        held = self.config.get(patterns) or {}
        if not isinstance(held, dict):
            raise ModelError(f"{patterns} is {shown(held)}, not an object", where=self.config.path, cure=AGAIN)
        for pattern in held:
            if _matches(pattern, module, self.config.path):
                return replace(self.config, entries=held, inside=patterns).number(pattern, above=0)
        return self.config.number(key, default, above=0)


def _matches(pattern: str, module: str, path: Path) -> bool:
    """As peft's `get_pattern_key`: the pattern is a regular expression for the end of a module's name."""
    try:
        return re.match(rf"(.*\.)?({pattern})$", module) is not None
    except re.error as error:
        raise ModelError(
            f"the pattern {pattern!r} is no regular expression: {error}", where=path, cure=AGAIN
        ) from error


def _refuse_other_computations(config: Configuration) -> None:
    for key, why in REFUSED.items():
        if config.get(key):
            raise ModelError(
                f"the adapter cannot be merged: {key} is {shown(config[key])}, and {why}",
                where=config.path,
                cure=MERGE_ELSEWHERE,
            )
    start: Any = config.get("init_lora_weights")
    if start not in PLAIN:
        known = isinstance(start, str) and CHANGES_THE_BASE.match(start)
        raise ModelError(
            f"the adapter cannot be merged: init_lora_weights is {shown(start)}, "
            + ("with which training changes the base model's weights as well" if known else "which is not known"),
            where=config.path,
            cure="save it as plain LoRA, with path_initial_model_for_weight_conversion of peft's save_pretrained()",
        )


KNOWN = USED | TOLD_BY_TENSORS | OF_TRAINING | REFUSED.keys() | {"init_lora_weights"}


def unknown_keys(config: Configuration) -> str:
    """The keys that nobody knows, with those that could be meant; empty where there are none."""
    unknown = sorted(key for key in config if key not in KNOWN and config[key] not in (None, False, [], {}))
    near = [each for key in unknown for each in nearest(key, KNOWN)]
    return listed([f"'{key}'" for key in unknown]) + (f" (did you mean {near[0]}?)" if near and unknown else "")
