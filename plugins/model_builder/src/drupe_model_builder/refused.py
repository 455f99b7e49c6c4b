"""Families that are known and not built, each with the reason."""

from __future__ import annotations

from collections.abc import Mapping

INDEXER = (
    "a small attention of its own chooses the tokens that attention reads; no operator of onnxruntime reads chosen "
    "tokens, and onnxruntime-genai has no cache for what the choice needs"
)
STREAMS = "its layers pass on several streams of hidden states (hyper-connections), which onnxruntime-genai cannot feed"
SHARED = "its layers share blocks of attention that also read the embedding"
WORDS = "it does not write one word after another"
OF_ITS_OWN = "its recurrence is one that no operator of onnxruntime computes"
ENCODER = "graphs are built of decoders, and it is an encoder of BERT's kind; an ONNX file of it can be optimized"
ENCODERS = (
    "albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "gte", "ibert",
    "jina_embeddings_v3", "luke", "megatron-bert", "mobilebert", "modernbert", "mpnet", "nomic_bert",
    "rembert", "roberta", "roberta-prelayernorm", "roformer", "ultrabert", "xlm-roberta",
    "xlm-roberta-xl", "xmod",
)  # fmt: skip

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(ENCODERS, ENCODER),
    "axk2": INDEXER,
    "deepseek_v32": INDEXER,
    "deepseek_v4": INDEXER,
    "diffusion_gemma": WORDS,
    "dots3_note": INDEXER,
    "gemma3n": "its layers work on four streams of hidden states (AltUp)",
    "gemma3n_text": "its layers work on four streams of hidden states (AltUp)",
    "glm5_next": INDEXER,
    "glm_moe_dsa": INDEXER,
    "hy_v4": INDEXER,
    "llama4_text": "attention within chunks, and weights of experts on their input, have no operator in onnxruntime",
    "longcat_flash": "some of its experts compute nothing, which no operator of onnxruntime for experts allows",
    "minimax_m3_vl": INDEXER,
    "mistral_large4": INDEXER,
    "qwen4_exp": STREAMS,
    "qwen4_exp_text": STREAMS,
    "recurrent_gemma": OF_ITS_OWN,
    "rwkv": OF_ITS_OWN,
    "xlstm": OF_ITS_OWN,
    "zamba": SHARED,
    "zamba2": SHARED,
}
"""By `model_type`: why the family is not built."""
