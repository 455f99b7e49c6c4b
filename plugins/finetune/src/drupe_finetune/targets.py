"""What gets an adapter: modules, and parameters of no module of their own, such as those of all experts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from drupe.api import Record, UsageError
from drupe_checkpoints.adapters.experts import is_of_all_experts
from drupe_checkpoints.wording import listed
from drupe_finetune.models import is_linear
from drupe_finetune.settings import FinetuneConfig

OF_PARAMETERS = ("lora", "rslora", "qlora")
"""The methods with which peft changes parameters."""


class Targets(Record):
    """modules: the ends of modules' names, or peft's word for all linear ones. parameters: the ends of parameters'
    names. unknown: targets that are neither in the model; peft may know them as names of transformers 4.
    """

    modules: Any
    parameters: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def targets_of(model: Any, config: FinetuneConfig) -> Targets:
    """The targets that the user has named. Raises UsageError for parameters that the method cannot change."""
    if not config.targets:
        return Targets("all-linear")
    modules = [name for name, _ in model.named_modules()]
    parameters = [name for name, each in model.named_parameters() if each.ndim == 2 or is_of_all_experts(name)]
    changed = tuple(each for each in config.targets if _is_among(each, parameters))
    others = [each for each in config.targets if _is_among(each, modules) or each not in changed]
    _refuse_unfit_method(changed, config)
    unknown = tuple(each for each in others if not _is_among(each, modules))
    return Targets(others, changed, unknown)


def refuse_without_effect(adapted: Any, targets: Targets) -> None:
    """Raise UsageError for targets that peft has passed over. adapted: the model with the adapter."""
    left = adapted.peft_config["default"].target_modules or ()
    if passed_over := [each for each in targets.unknown if each in left]:
        raise UsageError(
            f"--targets names {listed(passed_over)}, which the model does not have",
            cure=f"--targets, of {', '.join(adaptable(adapted.get_base_model()))}",
        )


def adaptable(model: Any) -> list[str]:
    """The ends of names of what can get an adapter."""
    modules = {name for name, each in model.named_modules() if is_linear(each) and "lora_" not in name}
    experts = {name for name, each in model.named_parameters() if is_of_all_experts(name)}
    plain = {name.removesuffix(".base_layer") for name in modules | experts}
    return sorted({name.rpartition(".")[2] for name in plain})


def _refuse_unfit_method(parameters: tuple[str, ...], config: FinetuneConfig) -> None:
    if not parameters:
        return
    named = listed(parameters)
    if config.method not in OF_PARAMETERS:
        raise UsageError(
            f"--method {config.method} changes linear modules only, and not parameters: {named}",
            cure="--method lora, or other --targets",
        )
    if config.dropout:
        raise UsageError(
            f"peft has no dropout for parameters: {named}",
            cure="--dropout 0, or other --targets",
        )


def _is_among(target: str, names: Iterable[str]) -> bool:
    """As peft finds targets: by the whole name or its end."""
    return any(name == target or name.endswith(f".{target}") for name in names)
