"""Flag: one of the flags of Olive's commands; and the functions that say what becomes of its value."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from drupe.api import Record, UsageError
from drupe_olive_compat.answers import Answer, Ledger, changed, kept, left_out, missing

NONE, ONE, MANY = "no value", "a value", "values"
"""What follows a flag. MANY: all words up to the next flag."""
LOG_LEVELS = {"0": "2", "1": "1", "2": "0", "3": "0", "4": "0"}
"""Olive's levels, from debug to critical, as Drupe's, of which 2 says most."""
NOT_MADE = ("int16", "int32", "uint16", "uint32", "fp4", "fp8", "nf4")
"""Precisions of Olive without a recipe. Names that neither knows are left to the provider, which may have more."""
A_PRECISION = "int4, int8, fp16, bf16 or fp32"
OURS = ("optimize", "run", "run-pass", "benchmark", "convert-adapters", "extract-adapters")
"""Commands that Drupe has for its own sake. Their lines are Olive's only where they are spelled so."""


@dataclasses.dataclass
class Line:
    """A command line of Olive while it is read.

    command: as typed. arguments: for Drupe's command, in its own spelling. given: what several flags decide together.
    passed: what of it is among the arguments already.
    builder: options of the model builder. olives: whether something in the line is spelled as only Olive spells it.
    flags_of: the flag that set a place of the workflow file, for what is said of that place.
    """

    command: str
    ledger: Ledger = dataclasses.field(default_factory=Ledger)
    arguments: list[str] = dataclasses.field(default_factory=list)
    given: dict[str, Any] = dataclasses.field(default_factory=dict)
    passed: set[str] = dataclasses.field(default_factory=set)
    builder: dict[str, Any] = dataclasses.field(default_factory=dict)
    flags_of: dict[str, str] = dataclasses.field(default_factory=dict)
    olives: bool = False


Treat = Callable[[Line, Any, str], Answer | None]
"""A function of the line, the flag's value (a text, True, or a list of texts) and the flag as typed.

None: nothing is to be said, because Drupe's flag does just that.
"""


class Flag(Record):
    """A flag of Olive's. names: in all spellings, with hyphens. answer: what becomes of it, as the docs say it.

    treat: what is done with the value; without one, the answer is said and that is all.
    """

    names: tuple[str, ...]
    takes: str
    answer: Answer
    treat: Treat | None = None

    def read(self, line: Line, value: Any, typed: str) -> Answer | None:
        """Take the flag into the line; gives what was said of it."""
        answer = self.answer if self.treat is None else self.treat(line, value, typed)
        if answer is not None:
            line.ledger.say(typed, answer)
        return answer


def gives(name: str) -> Treat:
    """Keep the value for what is decided when the whole line is read."""

    def treat(line: Line, value: Any, typed: str) -> None:
        line.given[name], line.flags_of[name] = value, typed

    return treat


def becomes(flag: str) -> Treat:
    """The same as a flag of Drupe's."""

    def treat(line: Line, value: Any, typed: str) -> None:
        line.arguments += [flag] if value is True else [flag, str(value)]

    return treat


def builds(option: str) -> Treat:
    """An option of the model builder."""

    def treat(line: Line, value: Any, typed: str) -> None:
        line.builder[option], line.flags_of[option] = plain(value), typed

    return treat


def extra_builder_options(line: Line, value: Any, typed: str) -> None:
    """`k=v,k=v`"""
    for pair in str(value).split(","):
        name, equals, each = pair.strip().partition("=")
        if not equals or not name:
            raise UsageError(
                f"'{pair}' is no option of the builder", where=typed, cure=f"{typed} NAME=VALUE,NAME=VALUE"
            )
        builds(name)(line, each, typed)


def any_word_is_yes(option: str) -> Treat:
    """In Olive, any word means true here, `false` too. Here it means what it says."""

    def treat(line: Line, value: Any, typed: str) -> Answer | None:
        builds(option)(line, value, typed)
        if plain(value) in (False, 0):
            return changed(f"{value} means no; Olive takes every word for yes")
        return None

    return treat


def model(line: Line, value: Any, typed: str) -> Answer | None:
    """The model, which may be the address of its page on the hub."""
    text = str(value)
    if text.casefold().startswith("azureml:"):
        return missing("a model in a registry of Azure is not looked for", "name a folder, a hub id or an ONNX file")
    page = next(
        (
            text.removeprefix(each)
            for each in ("https://huggingface.co/", "http://huggingface.co/")
            if text.startswith(each)
        ),
        "",
    )
    line.given["model"] = "/".join(page.split("/")[:2]) if page else text
    return kept(f"the model {line.given['model']} of the hub") if page else None


def adapter(line: Line, value: Any, typed: str) -> Answer:
    """An adapter of peft's. Olive keeps it beside the weights in some of its packages."""
    line.arguments += ["--adapter", str(value)]
    return changed(f"the adapter {value} is merged into the weights; --adapters keeps it beside them, to be switched")


def precision(line: Line, value: Any, typed: str) -> Answer | None:
    """The type of the weights."""
    name = str(value)
    if name in NOT_MADE:
        return missing(f"the precision {name}", A_PRECISION)
    line.given["precision"] = name.removeprefix("u") if name in ("uint4", "uint8") else name
    if name != line.given["precision"]:
        line.given["symmetric"] = False
        return changed(f"{line.given['precision']} with zero points")
    return None


def task(line: Line, value: Any, typed: str) -> Answer | None:
    """The task, which is read from the checkpoint."""
    from drupe_olive_compat.sources import TASKS

    if str(value) in TASKS:
        line.given["task"] = str(value)
        return left_out("the checkpoint's own configuration says what it is for")
    return missing(f"models for {value} are not built from a checkpoint", "export it to ONNX, and name the .onnx file")


def log_level(line: Line, value: Any, typed: str) -> Answer | None:
    """Olive's level, where the flag is typed as Olive has it; with a hyphen, it is Drupe's own."""
    if "_" not in typed:
        line.arguments += ["--log-level", str(value)]
        return kept("Drupe's own levels")
    if str(value) not in LOG_LEVELS:
        raise UsageError(f"{value} is no level", where=typed, cure="0 debug, 1 info, 2 warning, 3 error, 4 critical")
    line.arguments += ["--log-level", LOG_LEVELS[str(value)]]
    return kept("as in Olive, from 0 for debug to 4 for critical")


def exporter(line: Line, value: Any, typed: str) -> Answer | None:
    """Olive's exporters, or the name of one of Drupe's."""
    if value == "model_builder":
        return kept("the graph is built from the checkpoint's configuration")
    if value in ("dynamo_exporter", "torchscript_exporter", "optimum_exporter"):
        return changed("the graph is built from the checkpoint's configuration, not traced")
    return None


def block_size(line: Line, value: Any, typed: str) -> Answer | None:
    """Weights that share a scale; -1 is a whole row in Olive."""
    if str(value) == "-1":
        return missing("one scale for each row of a matrix", "--block-size 256, the largest")
    return None


def modality(line: Line, value: Any, typed: str) -> Answer | None:
    return kept("text") if value == "text" else missing(f"the modality {value}", "text, or leave it out")


def adapter_format(line: Line, value: Any, typed: str) -> Answer | None:
    """The format of an adapter's file, which is that of onnxruntime."""
    if value == "onnx_adapter":
        return kept("an .onnx_adapter file")
    return missing(f"an adapter in the format {value}", "onnx_adapter, which onnxruntime and onnxruntime-genai load")


def adapter_type(line: Line, value: Any, typed: str) -> Answer | None:
    """The method of an adapter in a graph."""
    return kept("LoRA") if value == "lora" else missing(f"taking {value} out of a graph", "lora")


def plain(value: Any) -> Any:
    """A text of a command line as the value that it means in a workflow file."""
    if not isinstance(value, str):
        return value
    words: Mapping[str, Any] = {"true": True, "false": False, "none": None}
    if value.casefold() in words:
        return words[value.casefold()]
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
