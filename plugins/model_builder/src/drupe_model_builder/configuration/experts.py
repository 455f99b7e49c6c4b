"""What families with experts read from config.json and from the names of tensors in the same way."""

from __future__ import annotations

from typing import Any

from drupe.api import ModelError, Record, counted, replace
from drupe_checkpoints import Configuration
from drupe_model_builder.configuration.block import Block
from drupe_model_builder.configuration.reading import layer_count, without_effect
from drupe_model_builder.parts.experts import Experts, Matrices
from drupe_model_builder.parts.mlp import MLP
from drupe_model_builder.parts.router import Router
from drupe_model_builder.parts.rows import Rows

COUNT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
CHOSEN_KEYS = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")
"""Spellings of the number of experts, and of how many a token runs: a family may be saved with several."""
MOST_EXPERTS = 65_536


class ExpertNames(Record):
    """The names of experts' tensors within a layer. at: the prefix; merged_at: that of checkpoints that transformers 5
    writes with merged experts, where some tensors have other names: `merged`, the beginnings of both, behind prefixes.
    gate: None for experts without one.
    """

    at: str = "mlp"
    router: str = "gate"
    gate: str | None = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    merged_at: str = "mlp"
    merged: tuple[tuple[str, str], ...] = ()


class MergedNames(Record):
    """The names, within a layer, of tensors that hold a matrix for each expert. at: the prefix of the nodes.

    up: [experts, 2 * width, hidden], the rows of gate and then those of up; interleaved: in turn. down: [experts,
    hidden, width]. transposed: the last two dimensions are exchanged. renamed: pairs of names, of which some
    checkpoints have the second.
    """

    at: str
    router: str
    up: str
    down: str
    up_bias: str = ""
    down_bias: str = ""
    interleaved: bool = False
    transposed: bool = False
    renamed: tuple[tuple[str, str], ...] = ()


QWEN = ExpertNames()
MIXTRAL = ExpertNames("block_sparse_moe", "gate", "w1", "w3", "w2")


class ExpertSizes(Record):
    """count: of experts. chosen: how many a token runs. width: of one expert."""

    count: int
    chosen: int
    width: int


def expert_sizes(
    config: Configuration, defaults: tuple[int, int, int] | None, *, width: str = "moe_intermediate_size"
) -> ExpertSizes:
    """The sizes by their keys. defaults: the family's, for keys that config.json leaves out; None for no defaults."""
    usual: tuple[int | None, ...] = defaults or (None, None, None)
    count, chosen = _spelling(config, COUNT_KEYS), _spelling(config, CHOSEN_KEYS)
    found = ExpertSizes(
        config.integer(count, usual[0], most=MOST_EXPERTS),
        config.integer(chosen, usual[1], most=MOST_EXPERTS),
        config.integer(width, usual[2]),
    )
    if found.chosen > found.count:
        raise config.mistake(f"{chosen} = {found.chosen} is more than {count} = {found.count}")
    return found


def _spelling(config: Configuration, keys: tuple[str, ...]) -> str:
    """The first of some keys that config.json has a value for; the first of all where it has none."""
    return next((key for key in keys if config.get(key) is not None), keys[0])


def refuse_other_activations(config: Configuration, key: str = "hidden_act") -> None:
    """Raise ModelError for experts whose activation no operator computes."""
    name = config.text(key, "silu")
    if name not in ("silu", "swish"):
        raise ModelError(
            f"experts with the activation function {key} = '{name}' in {config.path.name} are not supported; "
            "supported: silu",
            where=config.path,
            cure=f"correct {key} if it is misspelt; otherwise choose another model",
        )


def experts_of(
    block: Block,
    sizes: ExpertSizes,
    names: ExpertNames = QWEN,
    *,
    shared: MLP | None = None,
    hidden_size: int | None = None,
    **router: Any,
) -> Experts:
    """Experts that each have tensors of their own. router: fields of `Router`. hidden_size: their own, if any."""
    hidden, at = hidden_size or block.sizes.hidden, f"{block.name}.{names.at}"
    wide, narrow = (sizes.width, hidden), (hidden, sizes.width)

    def matrices(name: str, shape: tuple[int, int]) -> Matrices:
        return Matrices(tuple(Rows(f"{at}.experts.{number}.{name}.weight", shape) for number in range(sizes.count)))

    merged_at = f"{block.name}.{names.merged_at}"
    renamed = [(f"{at}.{here}", f"{merged_at}.{there}") for here, there in names.merged]
    return Experts(
        f"{at}.experts",
        router_of(block, sizes, names, **router),
        None if names.gate is None else matrices(names.gate, wide),
        matrices(names.up, wide),
        matrices(names.down, narrow),
        shared=shared,
        renamed=(*renamed, (f"{at}.", f"{merged_at}.")),
    )


def merged_experts(
    block: Block,
    sizes: ExpertSizes,
    names: MergedNames,
    *,
    shared: MLP | None = None,
    biases: bool = False,
    **router: Any,
) -> Experts:
    """Experts that lie in two tensors. router: fields of `Router`. biases: of all three matrices, and of the router."""
    hidden, width = block.sizes.hidden, sizes.width
    gate, up = (range(width),), (range(width, 2 * width),)
    if names.interleaved:
        gate, up = (range(0, 2 * width, 2),), (range(1, 2 * width, 2),)

    def rows(name: str, count: int, columns: int, ranges: tuple[range, ...], number: int) -> Rows:
        size = (columns, count) if names.transposed else (count, columns)
        return Rows(f"{block.name}.{name}", (sizes.count, *size), ranges, names.transposed, number)

    def bias(name: str, count: int, ranges: tuple[range, ...], number: int) -> Rows:
        return Rows(f"{block.name}.{name}", (sizes.count, count), ranges, index=number)

    def matrices(name: str, vector: str, count: int, columns: int, ranges: tuple[range, ...] = ()) -> Matrices:
        numbers = range(sizes.count)
        vectors = tuple(bias(vector, count, ranges, number) for number in numbers) if biases else ()
        return Matrices(tuple(rows(name, count, columns, ranges, number) for number in numbers), vectors)

    product = block.linear(names.router, sizes.count, hidden, biases)
    return Experts(
        ".".join(filter(None, (block.name, names.at, "experts"))),
        Router(product, sizes.chosen, **router),
        matrices(names.up, names.up_bias, 2 * width, hidden, gate),
        matrices(names.up, names.up_bias, 2 * width, hidden, up),
        matrices(names.down, names.down_bias, hidden, width),
        shared=shared,
        renamed=tuple((f"{block.name}.{here}", f"{block.name}.{there}") for here, there in names.renamed),
    )


def router_of(
    block: Block, sizes: ExpertSizes, names: ExpertNames = QWEN, *, bias: bool = False, **fields: Any
) -> Router:
    """A router with a matrix of its own. choice_bias: its name behind the prefix."""
    if (choice := fields.pop("choice_bias", None)) is not None:
        fields["choice_bias"] = f"{block.name}.{names.at}.{choice}"
    count = sizes.count + fields.get("idle", 0)
    product = block.linear(f"{names.at}.{names.router}", count, block.sizes.hidden, bias)
    return Router(product, sizes.chosen, **fields)


def shared_width(config: Configuration, sizes: ExpertSizes, default: int) -> int:
    """The width of the experts that every token runs, which are one MLP; 0 where `n_shared_experts` is null or 0."""
    if "n_shared_experts" in config and config["n_shared_experts"] in (None, 0):
        return 0
    return sizes.width * config.integer("n_shared_experts", default)


def shared_mlp(block: Block, at: str, width: int, activation: str, **differences: Any) -> MLP:
    """An MLP with a gate and a width of its own. at: the prefix of its tensors within the layer."""
    own = replace(block, sizes=replace(block.sizes, intermediate=width), names=replace(block.names, mlp=at))
    return own.gated_mlp(activation, **differences)


def by_step(config: Configuration) -> tuple[bool, ...]:
    """Which layers have experts, by `decoder_sparse_step` and `mlp_only_layers`, as in Qwen."""
    layers = layer_count(config)
    step = config.integer("decoder_sparse_step", 1)
    dense = config.get("mlp_only_layers") or []
    known = isinstance(dense, list) and all(isinstance(each, int) and 0 <= each < layers for each in dense)
    if not known:
        raise config.mistake(f"mlp_only_layers wants numbers of layers, from 0 to {layers - 1}")
    return tuple(number not in dense and (number + 1) % step == 0 for number in range(layers))


def after_first(config: Configuration, key: str = "first_k_dense_replace", default: int = 0) -> tuple[bool, ...]:
    """Which layers have experts: all but the first ones, unless `mlp_layer_types` says it for each.

    Of the others, every `moe_layer_freq`-th has some, counted from the first layer, as in DeepSeek's own code.
    """
    layers = layer_count(config)
    if config.get("mlp_layer_types") is not None:
        types = config.texts("mlp_layer_types")
        without_effect(config, key, "moe_layer_freq")
        if len(types) != layers or any(kind not in ("dense", "sparse") for kind in types):
            raise config.mistake(f"mlp_layer_types wants, for each of {counted(layers, 'layer')}, dense or sparse")
        return tuple(kind == "sparse" for kind in types)
    first = 0 if config.get(key) == 0 else config.integer(key, default) if default or key in config else 0
    every = config.integer("moe_layer_freq", 1)
    return tuple(number >= first and number % every == 0 for number in range(layers))


def sigmoid_router(
    config: Configuration,
    choice_bias: str,
    *,
    factor: tuple[str, float] = ("routed_scaling_factor", 1.0),
    groups: tuple[int, int] = (1, 1),
    normalise: bool,
) -> dict[str, Any]:
    """The fields of a router like DeepSeek's: sigmoids are the weights, and a bias is added for the choice.

    choice_bias: its name behind the experts' prefix. factor: the key of the factor on the weights, and its default.
    groups: the defaults of `n_group` and `topk_group`. normalise: the default of `norm_topk_prob`.
    """
    return {
        "score": "sigmoid",
        "choice_bias": choice_bias,
        **groups_of(config, groups),
        "normalise": config.flag("norm_topk_prob", normalise),
        "factor": config.number(*factor),
    }


def groups_of(config: Configuration, defaults: tuple[int, int] = (1, 1), *, score: int = 2) -> dict[str, int]:
    """The fields of a router that chooses from the best groups of experts only, by `n_group` and `topk_group`.

    score: how many of a group's best experts count for it. Raises ModelError for groups that do not fit the experts.
    """
    groups, kept = config.integer("n_group", defaults[0]), config.integer("topk_group", defaults[1])
    if kept > groups:
        raise config.mistake(f"topk_group = {kept} is more than n_group = {groups}")
    count, chosen = _spelling(config, COUNT_KEYS), _spelling(config, CHOSEN_KEYS)
    experts, wanted = config.integer(count, groups * score), config.integer(chosen, 1)
    if groups > 1 and (experts % groups or experts // groups < score):
        raise config.mistake(f"{count} = {experts} does not make n_group = {groups} groups of {score} experts or more")
    if groups > 1 and wanted > experts // groups * kept:
        raise config.mistake(
            f"{chosen} = {wanted} is more than topk_group = {kept} of n_group = {groups} groups hold: "
            f"{experts // groups * kept} of {experts} experts"
        )
    return {"groups": groups, "kept_groups": kept, "group_score": score}
