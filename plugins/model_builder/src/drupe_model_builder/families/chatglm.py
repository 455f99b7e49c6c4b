"""ChatGLM 2 and 3, and GLM-4 9B as it was first published: one matrix for query, key and value, neighbours rotated."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Names, Sizes, decoder
from drupe_model_builder.configuration.reading import MOST_LAYERS, not_built, shared_by
from drupe_model_builder.frequencies import rotary
from drupe_model_builder.parts.rows import one_after_another
from drupe_model_builder.parts.step import Layer

NAMES = Names(
    embedding="transformer.embedding.word_embeddings",
    layer="transformer.encoder.layers.{}",
    attention="self_attention",
    output="dense",
    down="dense_4h_to_h",
    final_norm="transformer.encoder.final_layernorm",
    head="transformer.output_layer",
)
IN_THE_GRAPH = ("self_attention.q_proj", "self_attention.k_proj", "self_attention.v_proj")
BASE = 10_000.0


def chatglm(config: Configuration) -> Decoder:
    sizes = _sizes(config)
    rope = Configuration(config.path, {"rope_theta": BASE * config.number("rope_ratio", 1.0, above=0)}).rope(
        partial=0.5
    )
    turned = rotary(rope, sizes.head_dim, sizes.context_length, interleaved=True)
    bias, all_biases = config.flag("add_qkv_bias", False), config.flag("add_bias_linear", False)
    for key, only in (("rmsnorm", True), ("apply_residual_connection_post_layernorm", False), ("original_rope", True)):
        if config.flag(key, only) is not only:
            raise not_built(
                config,
                key,
                not only,
                "changes what the layers compute",
                f"choose a checkpoint with {key} = {str(only).lower()}, such as ChatGLM3 or GLM-4",
            )
    rows = one_after_another([sizes.query, sizes.key, sizes.key])

    def layer(block: Block) -> Layer:
        projections = block.split(
            "self_attention.query_key_value", sizes.hidden, rows, IN_THE_GRAPH, bias=bias or all_biases
        )
        attention = block.attention(turned, projections=projections, output_bias=all_biases)
        return block.pre_norm(attention, block.gated_mlp("silu", fused="dense_h_to_4h", bias=all_biases))

    return decoder(config, sizes, layer, names=NAMES, tied=False, ignored=(r"transformer\.rotary_pos_emb\.inv_freq",))


def _sizes(config: Configuration) -> Sizes:
    heads = config.integer("num_attention_heads")
    grouped = config.flag("multi_query_attention", False)
    groups_key = "multi_query_group_num"
    return Sizes(
        vocab_size=config.integer("padded_vocab_size"),
        hidden=config.integer("hidden_size"),
        intermediate=config.integer("ffn_hidden_size"),
        heads=heads,
        kv_heads=shared_by(config, heads, config.integer(groups_key), groups_key) if grouped else heads,
        head_dim=config.integer("kv_channels", 128),
        layers=config.integer("num_layers", most=MOST_LAYERS),
        context_length=config.integer("seq_length"),
        epsilon=config.epsilon("layernorm_epsilon", 1e-5),
    )
