"""Rule: what becomes of one of Olive's passes; and the functions that rules name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from drupe.api import Record, UsageError, field
from drupe_olive_compat.answers import KEPT, Answer, changed, kept, left_out, missing
from drupe_olive_compat.builder_options import NO_COMPONENTS, WHOLE_TEXT, floating
from drupe_olive_compat.chain import Chain
from drupe_olive_compat.components import Component
from drupe_olive_compat.options import Treatment, number, sets, whole

OPTIMIZER = "python -m onnxruntime.transformers.optimizer, and name the graph that it makes with --model"
Effect = Callable[[Chain, Component], None]


class Rule(Record):
    """What becomes of a pass. built: of a checkpoint, whose graph Drupe builds. graph: of an ONNX graph; None if alike.

    options: what is done about each option, where the pass is kept or changed. effect: what the pass as a whole asks
    for, called after its options. exports: whether it makes an ONNX graph of a checkpoint. required: options that have
    to be there for a checkpoint.
    """

    built: Answer
    graph: Answer | None = None
    options: Mapping[str, Treatment] = field(default_factory=dict)
    effect: Effect | None = None
    exports: bool = False
    required: tuple[str, ...] = ()

    def answer(self, chain: Chain) -> Answer:
        return self.graph if chain.is_graph and self.graph is not None else self.built


def exporting(chain: Chain, part: Component) -> None:
    """Refuse a model of which the file makes one part, for others to be put beside it."""
    if chain.source.more and _extra(part, "exclude_embeds") is not False:
        takes = chain.source.more
        answer = missing(f"the model takes {takes} as well, and the file makes {NO_COMPONENTS}", WHOLE_TEXT)
        chain.ledger.say(part.title, answer)
    elif chain.source.more:
        chain.ledger.say(part.title, changed("the text model alone is packaged, for prompts of text"))


def _extra(part: Component, name: str) -> object:
    extra = part.options.get("extra_options")
    return extra.get(name) if isinstance(extra, Mapping) else part.options.get(name)


def rounding(bits: int, size: int, is_symmetric: bool, method: str = "") -> Effect:
    """Quantizing without data, with the defaults of Olive's pass where the file states nothing."""

    def effect(chain: Chain, part: Component) -> None:
        chain.bits = chain.bits or bits
        if chain.calibrates or chain.mixed:
            return
        chain.options["quality"] = "fast"
        if method:
            chain.options["method"] = method
        chain.options.setdefault("block_size", size)
        chain.options.setdefault("symmetric", is_symmetric)

    return effect


def calibrating(bits: int, size: int) -> Effect:
    """Quantizing by a text, which is Drupe's own where the file names none."""

    def effect(chain: Chain, part: Component) -> None:
        chain.bits = chain.bits or bits
        if part.options.get("group_size", part.options.get("q_group_size")) is None:
            chain.options.setdefault("block_size", size)
        if chain.bits == 8:
            chain.ledger.say(part.title, changed("weights of 8 bits are rounded to nearest, without a text"))
            return
        chain.calibrates = True
        if not part.options.get("data_config"):
            what = "calibrated on Drupe's own text, not on wikitext-2"
            chain.ledger.say(part.at("data_config"), changed(what, "the option calibration_data names another text"))

    return effect


def clipping(chain: Chain, part: Component) -> None:
    """AutoClip: what quantizes afterwards searches the range of each block."""
    chain.options.setdefault("quality", "fast")
    chain.options["method"] = "search"


def completing(chain: Chain, part: Component) -> None:
    """Rtn: alone it quantizes; after a pass that has quantized, it completes head and embedding."""
    if not chain.calibrates and not chain.mixed:
        rounding(4, 128, False)(chain, part)
    elif "overrides" not in part.options and part.options.get("bits") in (4, 8):
        sets("head_bits")(chain, part.options["bits"], part.at("bits"))


def mixing(chain: Chain, part: Component) -> None:
    """SelectiveMixedPrecision: a budget of bits for each weight, and Drupe measures where they count."""
    chain.mixed = True
    chain.bits = chain.bits or 4
    options = part.options
    if options.get("ratio") is None:
        return
    ratio = number(options["ratio"], part.at("ratio"))
    if not 0 <= ratio <= 1:
        raise UsageError(f"{ratio:g} is no share of the weights", where=part.at("ratio"), cure="a number from 0 to 1")
    size, low, high = (
        whole(options.get(name) or default, part.at(name))
        for name, default in (("group_size", 128), ("bits", 4), ("high_bits", 8))
    )
    size = size if size > 0 else 128
    scales = (16 if options.get("sym") else 16 + low) / size
    budget = round(ratio * low + (1 - ratio) * high + scales, 2)
    chain.options["bits_per_weight"] = budget
    chain.stated["bits_per_weight"] = part.at("ratio")
    chain.ledger.say(part.at("ratio"), changed(f"a budget of {budget} bits a weight, scales included"))


def preparing(how: str) -> Effect:
    """Changing the weights before they are quantized."""

    def effect(chain: Chain, part: Component) -> None:
        chain.prepare(how)

    return effect


def scaling(chain: Chain, part: Component) -> None:
    """AWQ: channels are scaled, and the weights rounded."""
    chain.prepare("scale")
    rounding(4, 128, False)(chain, part)


def half(chain: Chain, part: Component) -> None:
    """A pass that makes the graph float16."""
    answer = floating(chain, "fp16", part.place)
    if answer.handling != KEPT:
        chain.ledger.say(part.title, answer)


def fused(chain: Chain, part: Component) -> None:
    """OrtTransformersOptimization: there is nothing to fuse in what Drupe builds; its float16 is a precision."""
    if part.options.get("float16"):
        chain.ledger.say(part.at("float16"), floating(chain, "fp16", part.at("float16")))
    if chain.is_graph and not _onnxruntimes_own(part):
        chain.ledger.say(part.title, missing("fusing the operators of a graph", OPTIMIZER))
    elif chain.is_graph:
        chain.ledger.say(part.title, left_out("onnxruntime does the same each time that it opens the graph"))
    else:
        chain.ledger.say(part.title, left_out("nothing is left to fuse: the graph is built of fused operators"))


def _onnxruntimes_own(part: Component) -> bool:
    return (
        bool(part.options.get("only_onnxruntime"))
        and whole(part.options.get("opt_level") or 0, part.at("opt_level")) <= 1
    )


CASTING = missing("other types for inputs and outputs", "leave it out; they have the types that the runtime expects")


def casting(chain: Chain, part: Component) -> None:
    """OnnxIODataTypeConverter: the logits of what Drupe builds are float32 in any case."""
    if str(part.options.get("name_pattern", "logits")) == "logits" and not chain.is_graph:
        chain.ledger.say(part.title, kept("logits are float32 in every decoder that Drupe builds"))
    else:
        chain.ledger.say(part.title, CASTING)
