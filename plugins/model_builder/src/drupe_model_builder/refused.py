"""Families that are known and not built, each with the reason."""

from __future__ import annotations

from collections.abc import Mapping

INDEXER = (
    "a small attention of its own chooses the tokens that attention reads; no operator of onnxruntime reads chosen "
    "tokens, and onnxruntime-genai has no cache for what the choice needs"
)
STREAMS = "its layers pass on several streams of hidden states (hyper-connections), which onnxruntime-genai cannot feed"
HEADS = "its Mamba 1 layers are divided into heads, each with matrices of its own"
WORDS = "it does not write one word after another"
DRAFTS = "it proposes words to another model, whose keys and values it reads"
DECODES = "it is the decoder of an encoder with a decoder, whose other half it reads"
MIXED_KEYS = "in its attention, convolutions mix keys and values with those of the tokens before, which is not built"
LIMITED_LATE = "its experts limit what their activation gives, which no operator of onnxruntime for experts does"
SEES = "it writes what it sees in an image"
OF_ITS_OWN = "its recurrence is one that no operator of onnxruntime computes"

REFUSED: Mapping[str, str] = {
    "axk2": INDEXER,
    "beam": "its queries grow with a power of the position, which is not built",
    "bert-generation": DECODES,
    "blip": SEES,
    "blt": "it reads bytes in patches, which a second model cuts",
    "cpmant": "it puts tokens of its own before a text, and its attention tells segments of the text apart",
    "deepseek_v32": INDEXER,
    "deepseek_v4": INDEXER,
    "diffusion_gemma": WORDS,
    "diffusion_gemma_text": WORDS,
    "dots3_note": INDEXER,
    "dots3_note_text": INDEXER,
    "evolla": "it answers questions on proteins, which it reads",
    "gemma4_assistant": DRAFTS,
    "gemma4_unified_assistant": DRAFTS,
    "git": SEES,
    "glm5_next": INDEXER,
    "glm5_next_text": INDEXER,
    "glm_moe_dsa": INDEXER,
    "hrm_text": "it reads a prompt in both directions and its answer in one, which onnxruntime-genai cannot tell apart",
    "hy_v4": INDEXER,
    "inkling2_text": MIXED_KEYS,
    "inkling_text": MIXED_KEYS,
    "kyutai_speech_to_text": "it writes down what it hears",
    "minimax_m3_vl": INDEXER,
    "minimax_m3_vl_text": INDEXER,
    "mistral_large4": INDEXER,
    "mistral_large4_text": INDEXER,
    "moshi": "it writes words and sounds at once",
    "pi0": "it gives movements of a robot",
    "pp_formulanet": DECODES,
    "pp_formulanet_text": DECODES,
    "qwen4_exp": STREAMS,
    "qwen4_exp_text": STREAMS,
    "reformer": "its attention reads tokens that hashes choose, which no operator of onnxruntime computes",
    "rwkv": OF_ITS_OWN,
    "step3p5": LIMITED_LATE,
    "step3p7": LIMITED_LATE,
    "trocr": DECODES,
    "xlnet": "it predicts words in any order, from both sides",
    "xlstm": OF_ITS_OWN,
    "zamba": HEADS,
    "zaya": MIXED_KEYS,
}
"""By `model_type`: why the family is not built."""

ENCODERS = frozenset({
    "albert", "bert", "bge-m3", "big_bird", "camembert", "canine", "convbert", "data2vec-text", "deberta", "deberta-v2",
    "distilbert", "electra", "ernie", "ernie_m", "esm", "flaubert", "fnet", "funnel", "gte", "ibert",
    "jina_bert", "jina_embeddings_v3", "layoutlm", "layoutlmv3", "longformer", "luke", "megatron-bert", "mobilebert",
    "modernbert", "mpnet", "mra", "nezha", "neobert", "new", "nomic_bert", "nystromformer", "qdqbert", "rembert",
    "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "splinter", "squeezebert", "ultrabert", "xlm",
    "xlm-roberta", "xlm-roberta-xl", "xmod", "yoso",
})  # fmt: skip
"""The `model_type` of encoders of text: they give embeddings, classes or masked words, and write no text."""

ENCODER = "it is an encoder of text, and checkpoints of decoders only are built"
ENCODER_DECODER = "it is an encoder with a decoder, and checkpoints of decoders only are built"
OTHER_TOOL = (
    "export it to ONNX with another tool, and give the .onnx file: drupe optimize FILE quantizes any graph; or choose "
    "a decoder, such as Qwen3-Embedding for embeddings"
)
