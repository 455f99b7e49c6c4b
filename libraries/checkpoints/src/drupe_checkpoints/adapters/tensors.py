"""The tensors of an adapter, by the module that each belongs to and its part in the method."""

from __future__ import annotations

import re
from collections.abc import Mapping

from drupe.api import ModelError, Record, field
from drupe_checkpoints.adapters.configuration import MERGE_ELSEWHERE, METHODS, AdapterConfiguration
from drupe_checkpoints.adapters.reference import WEIGHTS, AdapterReference
from drupe_checkpoints.wording import listed
from drupe_onnx import Expression, element_name
from drupe_onnx.safetensors import read_header

PREFIXES = ("base_model.model.", "base_model.")
"""What peft puts before the names of the base model's modules."""
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "modules_to_save.")
PARTS: Mapping[str, tuple[str, ...]] = {
    "LORA": (
        "lora_A.weight", "lora_B.weight", "lora_B.bias", "lora_embedding_A", "lora_embedding_B",
        "lora_magnitude_vector.weight", "lora_magnitude_vector",
    ),
    "LOHA": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    "LOKR": ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
}  # fmt: skip
"""The parts of each method, as they stand at the ends of tensors' names."""
TOKENS = "token_adapter.trainable_tokens_delta"
OTHER_METHODS = re.compile(r"\.(lora_[A-Za-z_]+|hada_\w+|lokr_\w+|ia3_l|oft_\w+|vera_\w+|boft_\w+)(\.|$)")


class AdapterTensors(Record):
    """An adapter's tensors.

    changes: for each module the parts of the method, by name. whole: tensors that replace the base model's, by name.
    tokens: for each embedding the rows of the tokens that are trained. keys: what modules are called in the patterns of
    adapter_config.json, where that is not their own name. parameters: modules that are tensors of no other name.
    """

    reference: AdapterReference
    config: AdapterConfiguration
    changes: dict[str, dict[str, Expression]] = field(default_factory=dict)
    whole: dict[str, Expression] = field(default_factory=dict)
    tokens: dict[str, Expression] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    parameters: frozenset[str] = frozenset()

    @classmethod
    def read(cls, reference: AdapterReference) -> AdapterTensors:
        """Reads headers only. Raises ModelError for a broken file, and for tensors that are not the method's."""
        config = AdapterConfiguration.read(reference.folder)
        found = cls(reference, config)
        held = read_header(reference.folder / WEIGHTS)
        for name, tensor in held.items():
            found._put(name, tensor)
        if not held:
            raise found.error("the adapter holds no tensors", "save it again with peft's save_pretrained()")
        return found

    def tensor_of(self, module: str) -> str:
        """The name of the tensor that a module's parts change."""
        return module if module in self.parameters else f"{module}.weight"

    def scale_of(self, module: str) -> float:
        """What the product of a module's matrices is multiplied by."""
        return self.config.scale_of(self.keys.get(module, module))

    def rank_of(self, module: str) -> int:
        """The rank that adapter_config.json gives a module."""
        return self.config.rank_of(self.keys.get(module, module))

    def error(self, what: str, cure: str) -> ModelError:
        return ModelError(what, where=self.reference.folder, cure=cure)

    def _put(self, stored: str, tensor: Expression) -> None:
        if not tensor.dtype.is_floating_point():
            what = f"the adapter's tensor {stored} holds {element_name(tensor.dtype)}, not floating-point values"
            raise self.error(what, MERGE_ELSEWHERE)
        name = _of_the_base(stored)
        if name.endswith(f".{TOKENS}"):
            self.tokens[name.removesuffix(f".{TOKENS}")] = tensor
            return
        for part in PARTS[self.config.method]:
            if name.endswith(f".{part}"):
                module = self.changes.setdefault(name.removesuffix(f".{part}"), {})
                module[part.removesuffix(".weight")] = tensor
                return
        if OTHER_METHODS.search(name):
            method = METHODS[self.config.method]
            raise self.error(
                f"the adapter's tensor {stored} is not one of {method}, which {self.config.config.path.name} names",
                "use the adapter_config.json and adapter_model.safetensors of one and the same adapter",
            )
        self.whole[name.replace(".base_layer.", ".")] = tensor

    def refuse_incomplete(self) -> None:
        """Raise ModelError for a module of which a matrix is missing."""
        for module, parts in self.changes.items():
            lacking = [wanted for wanted in _needed(self.config, parts) if wanted not in parts]
            if lacking:
                held = listed(sorted(parts))
                raise self.error(
                    f"the adapter lacks {listed(lacking)} of {module}, of which it has {held}",
                    "save or download the adapter again: it is not complete",
                )


def _of_the_base(stored: str) -> str:
    """A tensor's name without what peft and other wrappers put before and into it."""
    name = next((stored.removeprefix(each) for each in PREFIXES if stored.startswith(each)), stored)
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _needed(config: AdapterConfiguration, parts: Mapping[str, Expression]) -> tuple[str, ...]:
    """The parts without which a module's change cannot be computed."""
    if config.method == "LOHA":
        return "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"
    if config.method == "LOKR":
        outer = ("lokr_w1_a", "lokr_w1_b") if {"lokr_w1_a", "lokr_w1_b"} & parts.keys() else ("lokr_w1",)
        inner = ("lokr_w2_a", "lokr_w2_b") if {"lokr_w2_a", "lokr_w2_b"} & parts.keys() else ("lokr_w2",)
        return (*outer, *inner)
    embeds = {"lora_embedding_A", "lora_embedding_B"} & parts.keys()
    pair = ("lora_embedding_A", "lora_embedding_B") if embeds else ("lora_A", "lora_B")
    return (*pair, "lora_magnitude_vector") if config.config.flag("use_dora", False) else pair
