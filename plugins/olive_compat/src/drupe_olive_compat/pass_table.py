"""Olive's pass types: what becomes of each, as data. A pass that comes later is one line.

A rule without an effect says all in its line. Passes whose line depends on
their options have it from their rule's effect.
"""

from __future__ import annotations

from collections.abc import Mapping

from drupe_olive_compat.adapters import EXTRACTED, extracting, merging
from drupe_olive_compat.answers import changed, kept, left_out, missing
from drupe_olive_compat.builder_options import BUILDER, EXPORTING
from drupe_olive_compat.options import EXTERNAL, MODULES, Treatment
from drupe_olive_compat.pass_options import (
    AWQ,
    CALIBRATED,
    CLIPPING,
    DYNAMIC,
    HALF,
    KQUANT,
    MIXED,
    ON_GRAPHS,
    OTHERS_CALIBRATED,
    RECORD,
    ROTATION,
)
from drupe_olive_compat.rules import (
    CASTING,
    OPTIMIZER,
    Effect,
    Rule,
    calibrating,
    casting,
    clipping,
    completing,
    exporting,
    fused,
    half,
    mixing,
    preparing,
    rounding,
    scaling,
)
from drupe_olive_compat.surgeries import BY_OLIVE, say_surgeries
from drupe_olive_compat.training import LOFTQ, LOHA, LOKR, LORA, QLORA, training
from drupe_olive_compat.tuning_options import TUNING, tuning

_BUILT = changed("the graph is built from the checkpoint's configuration, not traced")
_EXPORTED = left_out("the model is an ONNX graph already")
_FUSED = "nothing is left to fuse: the graph is built of fused operators"
_NOT_TRAINED = missing("training a graph", "name its checkpoint with --model")
_INTEGERS = missing(
    "static quantization, with integer activations and scales from data",
    "--precision int8 of drupe optimize: 8-bit weights",
)
_PRUNING = missing("pruning", "prune the checkpoint with another tool, and name the result with --model")
_SPLIT = missing("cutting a model into several graphs", "leave it out: a package has one graph, in bounded memory")
_FIXED = missing("fixing sizes of a graph", "python -m onnxruntime.tools.make_dynamic_shape_fixed, then --model")
_GRAPH_EDIT = missing("this edit of a graph", BY_OLIVE)
_CLEANING = left_out("nothing is to be cleaned in a graph that Drupe builds")
_ON_OPENING = left_out("onnxruntime cleans a graph each time that it opens it; no result changes")
_NO_PREPARATION = left_out("shapes are inferred before weights are quantized in any case")


def _vendor(name: str) -> Rule:
    return Rule(
        missing(f"compiling for {name}", "the vendor's own tool; a plugin can bring the provider (docs/plugins.md)")
    )


def _trained(kind: str, options: Mapping[str, Treatment], effect: Effect) -> Rule:
    what = f"finetune trains an adapter ({kind}) before all other passes, and it is merged into the weights"
    return Rule(kept(what), _NOT_TRAINED, options, effect)


_OPENVINO, _QNN, _QAIRT, _RYZEN = map(_vendor, ("OpenVINO", "QNN", "QAIRT", "AMD's NPUs"))

PASSES: Mapping[str, Rule] = {
    # capture
    "ModelBuilder": Rule(
        kept("build-decoder makes the graph, package-genai the files of onnxruntime-genai"),
        kept("package-genai makes the files of onnxruntime-genai"),
        BUILDER,
        exporting,
        exports=True,
        required=("precision",),
    ),
    "OnnxConversion": Rule(_BUILT, _EXPORTED, EXPORTING, exporting, exports=True),
    "MobiusBuilder": Rule(
        changed("build-decoder makes one graph of the text model"), _EXPORTED, EXPORTING, exporting, exports=True
    ),
    "OptimumConversion": Rule(_BUILT, _EXPORTED, EXPORTING, exporting, exports=True),
    "OptimumMerging": Rule(
        left_out("one graph serves prompts and single tokens"),
        missing("joining two decoders of optimum", "export the decoder with past alone, and name it"),
    ),
    "OnnxOpVersionConversion": Rule(
        left_out("the target's kernels decide on the opset"),
        left_out("adopt-graph raises the opset as far as is needed"),
    ),
    "CaptureSplitInfo": Rule(_SPLIT),
    "CaptureLayerAnnotations": Rule(
        left_out("nodes carry their layer and role in any case"),
        left_out("adopt-graph marks the nodes of a decoder with layer and role"),
    ),
    # graph
    "GraphSurgeries": Rule(
        changed("each surgery by its name"), changed("each surgery by its name"), effect=say_surgeries
    ),
    "OrtTransformersOptimization": Rule(
        left_out(f"{_FUSED}; its float16 is the precision fp16"),
        missing("fusing the operators of a graph, but for what onnxruntime does when it opens one", OPTIMIZER),
        effect=fused,
    ),
    "OnnxPeepholeOptimizer": Rule(_CLEANING, _ON_OPENING),
    "OnnxFloatToFloat16": Rule(
        kept("the precision fp16"),
        kept("the precision fp16: adopt-graph casts what the target computes in it"),
        options=HALF,
        effect=half,
    ),
    "OnnxIODataTypeConverter": Rule(
        kept("logits are float32 in every decoder that Drupe builds"), CASTING, effect=casting
    ),
    "OrtMixedPrecision": Rule(
        left_out("the target's recipe says what is computed in float32"),
        missing("float16 but for listed operators", BY_OLIVE),
    ),
    "OnnxScriptFusion": Rule(left_out(_FUSED), missing("fusing the operators of a graph", OPTIMIZER)),
    "DynamicToFixedShape": Rule(_FIXED),
    "StaticLLM": Rule(missing("graphs of fixed sizes for NPUs", "leave it out for a processor or a GPU")),
    "InputNCHWtoNHWC": Rule(_GRAPH_EDIT),
    "AddOliveMetadata": Rule(
        changed("drupe.json says what made the package, with versions and digests"), options={**EXTERNAL, **RECORD}
    ),
    # quantizing and pruning a checkpoint
    "Gptq": Rule(
        kept("quantize-gptq, block by block"),
        missing("GPTQ of a graph by Olive's pass for checkpoints", "name the checkpoint"),
        CALIBRATED,
        calibrating(4, 128),
    ),
    "Rtn": Rule(
        kept("quantize-weights rounds to nearest what is not quantized yet"), options=MODULES, effect=completing
    ),
    "KQuant": Rule(
        kept("quantize-weights: an error search for 4 bits, and 8 bits are rounded to nearest"),
        options=MODULES,
        effect=rounding(4, 32, False, "search"),
    ),
    "SelectiveMixedPrecision": Rule(
        changed("allocate-bits gives 4 or 8 bits to each matrix, within a budget"), options=MIXED, effect=mixing
    ),
    "QuaRot": Rule(
        changed("rotate-weights rotates the hidden states (a part of QuaRot that costs nothing at run time)"),
        options=ROTATION,
        effect=preparing("rotate"),
    ),
    "SpinQuant": Rule(
        changed("rotate-weights rotates the hidden states; the rotation is not trained"),
        options=ROTATION,
        effect=preparing("rotate"),
    ),
    "AutoClip": Rule(changed("the method search finds the range of every block"), options=CLIPPING, effect=clipping),
    "GptqModel": Rule(
        changed("quantize-gptq instead of the package gptqmodel"), options=OTHERS_CALIBRATED, effect=calibrating(4, 128)
    ),
    "GptqQuantizer": Rule(
        changed("quantize-gptq instead of auto-gptq"), options=OTHERS_CALIBRATED, effect=calibrating(4, 128)
    ),
    "AutoAWQQuantizer": Rule(
        changed("scale-channels instead of autoawq, then rounding to nearest"), options=AWQ, effect=scaling
    ),
    "QuarkQuantization": Rule(missing("AMD Quark", "Gptq in place of it, for a processor or a GPU")),
    "QuarkQuantizationVitisAI": Rule(missing("AMD Quark", "Gptq in place of it, for a processor or a GPU")),
    "SliceGPT": Rule(_PRUNING),
    "SparseGPT": Rule(_PRUNING),
    # quantizing a graph
    "OnnxKQuantQuantization": Rule(
        kept("quantize-weights: an error search for 4 bits, and 8 bits are rounded to nearest"),
        options=KQUANT,
        effect=rounding(4, 32, False, "search"),
    ),
    "OnnxBlockWiseRtnQuantization": Rule(
        kept("quantize-weights rounds to nearest"), options=ON_GRAPHS, effect=rounding(4, 128, True)
    ),
    "OnnxHqqQuantization": Rule(
        kept("quantize-weights with the method hqq"), options=ON_GRAPHS, effect=rounding(4, 128, False, "hqq")
    ),
    "OnnxBnb4Quantization": Rule(
        missing("fp4 and nf4", "OnnxBlockWiseRtnQuantization or OnnxKQuantQuantization: 4-bit integers")
    ),
    "OnnxStaticQuantization": Rule(_INTEGERS),
    "OnnxDynamicQuantization": Rule(
        changed("8-bit weights in blocks; whether activations are quantized as they run is up to the target's kernels"),
        options=DYNAMIC,
        effect=rounding(8, 32, False),
    ),
    "OnnxQuantization": Rule(_INTEGERS),
    "OnnxQuantizationPreprocess": Rule(_NO_PREPARATION),
    "MatMulNBitsToQDQ": Rule(missing("quantized weights as DequantizeLinear", "leave it out: MatMulNBits stays")),
    "MixedPrecisionOverrides": Rule(_INTEGERS),
    "IncQuantization": Rule(_INTEGERS),
    "IncStaticQuantization": Rule(_INTEGERS),
    "IncDynamicQuantization": Rule(missing("Intel Neural Compressor", "OnnxDynamicQuantization in place of it")),
    "AimetQuantization": Rule(_INTEGERS),
    "NVModelOptQuantization": Rule(missing("NVIDIA ModelOpt", "Gptq or AutoAWQQuantizer in place of it")),
    # adapters
    "LoRA": _trained("LoRA", LORA, training("lora")),
    "QLoRA": _trained("QLoRA", QLORA, training("qlora")),
    "LoftQ": _trained("LoRA that begins with LoftQ", LOFTQ, training("lora", init="loftq", loftq_iterations=1)),
    "DoRA": _trained("DoRA", LORA, training("dora")),
    "LoHa": _trained("LoHa", LOHA, training("loha")),
    "LoKr": _trained("LoKr", LOKR, training("lokr")),
    "SDLoRA": Rule(missing("training diffusion models", "train with diffusers")),
    "MergeAdapterWeights": Rule(
        kept("an adapter that input_model names is merged while the checkpoint is read"), effect=merging
    ),
    "ExtractAdapters": Rule(
        kept("the adapter that input_model names, or that LoRA or QLoRA trains, stays beside the base model"),
        missing("adapters as inputs of a graph, as one of several passes", "drupe extract-adapters MODEL -o OUT"),
        EXTRACTED,
        extracting,
    ),
    # composition
    "SplitModel": Rule(_SPLIT),
    "ComposeOnnxModels": Rule(
        missing("joining several graphs", "onnx.compose.merge_models, and name the graph with --model")
    ),
    # session tuning
    "OrtSessionParamsTuning": Rule(
        kept("tune-session times settings on the finished package, and keeps what is faster beyond the noise"),
        options=TUNING,
        effect=tuning,
    ),
    # vendors
    **dict.fromkeys(
        (
            "OpenVINOOptimumConversion",
            "OpenVINOConversion",
            "OpenVINOIoUpdate",
            "OpenVINOEncapsulation",
            "OpenVINOQuantization",
            "OpenVINOQuantizationWithAccuracy",
            "OpenVINOWeightCompression",
        ),
        _OPENVINO,
    ),
    **dict.fromkeys(
        (
            "EPContextBinaryGenerator",
            "QNNPreprocess",
            "QNNConversion",
            "QNNModelLibGenerator",
            "QNNContextBinaryGenerator",
        ),
        _QNN,
    ),
    **dict.fromkeys(
        ("QairtPreparation", "QairtGenAIBuilder", "QairtEncapsulation", "QairtMHA2SHA", "QairtPipelinePass"), _QAIRT
    ),
    **dict.fromkeys(
        ("VitisGenerateModelLLM", "RyzenGenerateModelLLM", "VitisGenerateModelSD", "VitisAIAddMetaData"), _RYZEN
    ),
    "NVModelOptGraphSurgery": Rule(missing("graph surgeries of NVIDIA ModelOpt", BY_OLIVE)),
    # checks
    "OnnxDiscrepancyCheck": Rule(changed("every package is run and compared with its source before it is handed over")),
    "SaveTestModelConfig": Rule(missing("a small random model to test with", "drupe demo has a small trained one")),
    "ConvertHfToGGUF": Rule(missing("writing GGUF files", "llama.cpp's convert_hf_to_gguf.py")),
}

FORMER: Mapping[str, str] = {
    "OnnxModelOptimizer": "OnnxPeepholeOptimizer",
    "OrtPerfTuning": "OrtSessionParamsTuning",
    "GenAIModelExporter": "ModelBuilder",
    "OnnxIOFloat16ToFloat32": "OnnxIODataTypeConverter",
    "OnnxMatMul4Quantizer": "OnnxBlockWiseRtnQuantization",
}
"""Names in older files, and the pass that is meant."""
GONE = missing("a pass that Olive itself no longer has", "leave it out")
UNKNOWN = missing("a pass that Olive does not have", "leave it out")
UNTYPED = missing("a pass without a type", "add its type")
REMOVED = (
    "InsertBeamSearch",
    "AppendPrePostProcessingOps",
    "QuantizationAwareTraining",
    "SNPEConversion",
    "SNPEQuantization",
    "SNPEtoONNXConversion",
    "VitisAIQuantization",
    "MoEExpertsDistributor",
    "PyTorchTensorParallel",
    "TorchTRTConversion",
    "TrtMatMulToConvTransform",
)
_BY_NAME = {name.casefold(): name for name in (*PASSES, *FORMER, *REMOVED)}


def rule_of(written: str) -> tuple[str, Rule]:
    """The pass's name as Olive spells it, and its rule. A dotted name's last part counts, and case does not."""
    last = written.rpartition(".")[2]
    name = _BY_NAME.get(last.casefold(), last)
    name = FORMER.get(name, name)
    return name, PASSES.get(name) or Rule(GONE if name in REMOVED else UNKNOWN if name else UNTYPED)
