"""The flags of Olive's commands: what becomes of each, as data. A flag that comes later is one line."""

from __future__ import annotations

from collections.abc import Mapping

from drupe.api import Record
from drupe_olive_compat.answers import Answer, changed, kept, left_out, missing
from drupe_olive_compat.flags import (
    MANY,
    NONE,
    ONE,
    Flag,
    adapter,
    adapter_format,
    adapter_type,
    any_word_is_yes,
    becomes,
    block_size,
    builds,
    exporter,
    extra_builder_options,
    gives,
    log_level,
    modality,
    model,
    precision,
    task,
)


class OliveCommand(Record):
    """A command of Olive's. flags: by group. answer: what becomes of it as a whole. output: its default folder."""

    flags: tuple[Flag, ...]
    answer: Answer
    output: str = ""


def _flag(names: str, takes: str, answer: Answer, treat: object = None) -> Flag:
    return Flag(tuple(names.split()), takes, answer, treat)  # type: ignore[arg-type]


_SAME = kept("the same")
_SPLIT = missing("cutting a model into several graphs", "leave it out: a package has one graph, in bounded memory")
_FIXED = missing(
    "fixing sizes of a graph", "leave it out; python -m onnxruntime.tools.make_dynamic_shape_fixed does it"
)
_QDQ = missing("quantized weights as DequantizeLinear", "leave it out: MatMulNBits stays")
_STATIC = missing("static quantization, with integer activations", "--precision int8: weights of 8 bits")
_SCRIPT = missing(
    "a Python file that makes the model, and Drupe runs no code of a model", "export it to ONNX, and name it"
)
_ADAPTER = changed("--adapter: it is merged into the weights")
_BESIDE = missing("a model with an adapter beside it", "drupe optimize MODEL --adapter DIR, and name its package")
_RANDOM = missing("a random model of two layers in place of the model", "name a small checkpoint")
_UNREAD = left_out("Olive reads it, and uses it for nothing")
_TRACED = left_out("nothing is traced: the graph is built from the checkpoint's configuration")
_AZURE = left_out("the cache is a folder; DRUPE_CACHE may name one on a shared disk")
_BUILT = kept("the graph is built from the checkpoint's configuration")
_NPU = missing("compiling for an NPU", "the vendor's own tool; a plugin can bring the provider")
_BUILDER = changed("as the option of that name in a workflow file")

MODEL = (
    _flag("-m --model-name-or-path", ONE, _SAME, model),
    _flag("-o --output --output-path", ONE, _SAME, gives("output")),
)
HF = (
    _flag("-t --task", ONE, left_out("the checkpoint's own configuration says what it is for"), task),
    _flag("--trust-remote-code", NONE, left_out("no code of a checkpoint is ever run, and none is needed")),
    _flag("--test", NONE, _RANDOM),
    _flag("--test-metrics", MANY, _RANDOM),
    _flag("--test-llama-path", ONE, _RANDOM),
)
ADAPTER = (_flag("-a --adapter-path", ONE, _ADAPTER, adapter),)
SCRIPT = (_flag("--model-script", ONE, _SCRIPT), _flag("--script-dir", ONE, _SCRIPT))
ACCEL = (
    _flag("--device", ONE, _SAME, gives("device")),
    _flag("--provider", ONE, _SAME, gives("provider")),
    _flag("--memory", ONE, left_out("memory is bounded without it")),
)
CACHE = (_flag("--account-name", ONE, _AZURE), _flag("--container-name", ONE, _AZURE))
SAVE = (
    _flag("--save-config-file", NONE, left_out("drupe.json in the package has the whole plan")),
    _flag("--dry-run", NONE, changed("--plan: it says what would run, and writes nothing"), becomes("--plan")),
)
LOG = (
    _flag("--log-level", ONE, changed("0 debug to 4 critical, where it is typed --log_level"), log_level),
    _flag("--disable-telemetry", NONE, kept("nothing is sent anywhere")),
)
PRECISION = _flag(
    "--precision", ONE, changed("int4, int8, fp16, bf16, fp32; uint4 and uint8 are these with zero points"), precision
)
SHARED = (*HF, *ADAPTER, *SCRIPT, *LOG)
SHARED_OF_PACKAGES = (*HF, _flag("-a --adapter-path", ONE, _BESIDE), *SCRIPT, *LOG)

_AUTO_OPT = (
    *MODEL,
    *SHARED,
    *ACCEL,
    *CACHE,
    *SAVE,
    PRECISION,
    _flag("--use-model-builder", NONE, _BUILT),
    _flag("--use-ort-genai", NONE, kept("genai_config.json and the tokenizer are part of every package")),
    _flag("--use-dynamo-exporter", NONE, _TRACED),
    _flag("--use-qdq-encoding", NONE, _QDQ),
    _flag("-d --data-name", ONE, _UNREAD),
    _flag("--split", ONE, _UNREAD),
    _flag("--subset", ONE, _UNREAD),
    _flag("--input-cols", MANY, _UNREAD),
    _flag("--batch-size", ONE, _UNREAD),
    _flag("--dynamic-to-fixed-shape-dim-param", MANY, _FIXED),
    _flag("--dynamic-to-fixed-shape-dim-value", MANY, _FIXED),
    _flag("--num-splits", ONE, _SPLIT),
    _flag("--cost-model", ONE, _SPLIT),
    _flag("--mixed-precision-overrides-config", MANY, _STATIC),
    _flag("--enable-search", MANY, missing("a search over passes", "drupe run takes a workflow with lists of values")),
    _flag("--seed", ONE, left_out("it is of --enable_search")),
    _flag("--is-generative-model", NONE, left_out("the checkpoint's own configuration says what it is for")),
)
_OPTIMIZE = (
    *MODEL,
    *SHARED,
    *ACCEL[:2],
    *SAVE,
    PRECISION,
    _flag("--act-precision", ONE, _STATIC),
    _flag(
        "--exporter",
        ONE,
        changed("Olive's exporters: the graph is built, not traced; other names are Drupe's"),
        exporter,
    ),
    _flag("--block-size", ONE, changed("16 to 256; -1, a whole row, is not done"), block_size),
    _flag("--num-split", ONE, _SPLIT),
    _flag("--memory", ONE, _SPLIT),
    _flag("--dim-param", ONE, _FIXED),
    _flag("--dim-value", ONE, _FIXED),
    _flag("--use-qdq-format", NONE, _QDQ),
    _flag("--surgeries", ONE, missing("surgeries by name", "drupe run takes a workflow with a pass GraphSurgeries")),
    _flag("--modality", ONE, kept("text"), modality),
    _flag("--enable-aot", NONE, _NPU),
    _flag("--qnn-env-path", ONE, _NPU),
    _flag("--extra-mb-options", ONE, _BUILDER, extra_builder_options),
    _flag("--use-ort-genai", NONE, kept("genai_config.json and the tokenizer are part of every package")),
    _flag("--use-model-builder", NONE, _BUILT),
)
_QUANTIZE = (
    *MODEL,
    *SHARED,
    *CACHE,
    *SAVE,
    _flag(
        "--algorithm",
        ONE,
        changed("as the pass of that name: see above; lpbq, seqmse and adaround are not done"),
        gives("algorithm"),
    ),
    _flag(
        "--precision", ONE, changed("int4 or int8; 4 bits if it is left out, as Olive's passes make them"), precision
    ),
    _flag("--act-precision", ONE, _STATIC),
    _flag("--implementation", ONE, changed("as the pass that Olive takes: see above"), gives("implementation")),
    _flag("--use-qdq-encoding", NONE, _QDQ),
    _flag("-d --data-name", ONE, kept("the text to calibrate with, for gptq"), gives("data_name")),
    _flag("--data-files", ONE, kept("the text to calibrate with, for gptq"), gives("data_files")),
    _flag("--subset", ONE, kept("of the data set"), gives("subset")),
    _flag("--split", ONE, kept("of the data set"), gives("split")),
    _flag("--text-field", ONE, kept("the column of the data set"), gives("text_field")),
    _flag(
        "--text-template", ONE, missing("joining columns by a template", "write the text to a file: --data_files FILE")
    ),
    _flag(
        "--use-chat-template",
        NONE,
        missing("calibrating on conversations", "write the text to a file: --data_files FILE"),
    ),
    _flag("--max-seq-len", ONE, kept("--calibration-length"), gives("max_seq_len")),
    _flag("--max-samples", ONE, kept("--calibration-sequences"), gives("max_samples")),
    _flag("--add-special-tokens", ONE, left_out("the text is read as it is")),
    _flag("--batch-size", ONE, left_out("memory is bounded without it")),
    _flag("--input-cols", MANY, left_out("a text has one column")),
)
_CAPTURE = (
    *MODEL,
    *SHARED,
    *CACHE,
    *SAVE,
    _flag("--use-model-builder", NONE, _BUILT, gives("use_model_builder")),
    _flag(
        "--use-mobius-builder",
        NONE,
        changed("the graph is built from the checkpoint's configuration"),
        gives("use_mobius_builder"),
    ),
    _flag("--use-dynamo-exporter", NONE, _TRACED),
    _flag("--use-ort-genai", NONE, kept("genai_config.json and the tokenizer are part of every package")),
    _flag("--provider --execution-provider", ONE, _SAME, gives("provider")),
    _flag("--conversion-device", ONE, _TRACED),
    _flag("--torch-dtype", ONE, kept("the precision"), gives("torch_dtype")),
    _flag("--target-opset", ONE, left_out("the target's kernels decide on the opset")),
    _flag("--fixed-param-dict", ONE, _FIXED),
    _flag("--past-key-value-name", ONE, left_out("caches have the names that onnxruntime-genai expects")),
    _flag("--precision", ONE, changed("fp16, fp32, int4 or bf16, for the builders; fp16 if it is left out"), precision),
    _flag("--int4-block-size", ONE, _SAME, builds("int4_block_size")),
    _flag("--int4-accuracy-level", ONE, _SAME, builds("int4_accuracy_level")),
    _flag(
        "--exclude-embeds",
        ONE,
        missing("a decoder without its embedding", "leave it out"),
        any_word_is_yes("exclude_embeds"),
    ),
    _flag(
        "--exclude-lm-head",
        ONE,
        missing("a decoder without its head", "leave it out"),
        any_word_is_yes("exclude_lm_head"),
    ),
    _flag("--enable-cuda-graph", ONE, left_out("a setting of the session"), any_word_is_yes("enable_cuda_graph")),
    _flag("--extra-mb-options", ONE, _BUILDER, extra_builder_options),
    _flag("--model-variant", ONE, missing("pipelines of diffusers", "leave it out for a decoder")),
)
_PACKAGES = missing(
    "listing what Olive's passes need", 'pip install "drupe[cpu]" brings all that a run on a processor needs'
)
_RUN = (
    *MODEL,
    *HF,
    _flag("-a --adapter-path", ONE, missing("an adapter for a file's model", "adapter_path in the file's input_model")),
    *SCRIPT,
    *LOG,
    _flag("--config --run-config", ONE, _SAME, gives("config")),
    _flag("--list-required-packages", NONE, _PACKAGES),
    _flag("--setup", NONE, _PACKAGES),
    _flag("--packages", NONE, _PACKAGES),
    _flag("--tempdir", ONE, left_out("TMPDIR in the environment names the folder of temporary files")),
    _flag("--package-config", ONE, missing("another table of passes", "a plugin brings passes: docs/plugins.md")),
    _flag("--clean-cache", NONE, left_out("drupe cache clean empties the cache")),
)
_RUN_PASS = (
    *MODEL,
    *SHARED,
    *ACCEL,
    *SAVE,
    _flag(
        "--pass-name", ONE, changed("a pass of Olive's, as in a workflow file, or one of Drupe's"), gives("pass_name")
    ),
    _flag("--pass-config", ONE, changed("its options, as JSON"), gives("pass_config")),
    _flag("--list-passes", NONE, changed("drupe passes"), gives("list_passes")),
)
_BENCHMARK = (
    *MODEL,
    *SHARED_OF_PACKAGES,
    *SAVE,
    *CACHE,
    _flag("--tasks", MANY, changed("drupe evaluate --evaluator lm-eval"), gives("tasks")),
    _flag("--max-length", ONE, changed("a setting of the evaluator lm-eval"), gives("max_length")),
    _flag("--limit", ONE, changed("a setting of the evaluator lm-eval"), gives("limit")),
    _flag("--backend", ONE, left_out("the package's own runtime is taken")),
)

_TUNING = (
    *MODEL,
    *SHARED_OF_PACKAGES,
    *SAVE,
    *CACHE,
    *(
        _flag(
            f"--{name.replace('_', '-')}", takes, changed("as the option of that name in a workflow file"), gives(name)
        )
        for name, takes in (
            ("intra_thread_num_list", MANY),
            ("inter_thread_num_list", MANY),
            ("opt_level_list", MANY),
            ("execution_mode_list", MANY),
            ("cpu_cores", ONE),
            ("io_bind", NONE),
            ("enable_cuda_graph", NONE),
            ("trt_fp16_enable", NONE),
            ("extra_session_config", ONE),
        )
    ),
    _flag("--device", ONE, _SAME, gives("device")),
    _flag("--providers-list", MANY, changed("--provider, where it is one"), gives("providers_list")),
    _flag("--memory", ONE, left_out("memory is bounded without it")),
    _flag("--disable-force-evaluate-other-eps", NONE, _UNREAD),
    _flag("--enable-profiling", NONE, _UNREAD),
    _flag("--predict-with-kv-cache", NONE, _UNREAD),
)

_QUIET = (
    _flag("--log-level", ONE, left_out("there is little to log")),
    _flag("--disable-telemetry", NONE, kept("nothing is sent anywhere")),
)
_FORMAT = "the file is an .onnx_adapter file"
_FLOATS = missing("quantized adapters", "leave it out: they are small, and stay in floating point")

_CONVERT_ADAPTERS = (
    _flag("-a --adapter-path", ONE, _SAME),
    _flag("-o --output --output-path", ONE, _SAME),
    _flag("--adapter-format", ONE, changed(_FORMAT), adapter_format),
    _flag("--dtype", ONE, _SAME),
    _flag("--quantize-int4", NONE, _FLOATS),
    _flag("--int4-block-size", ONE, left_out("adapters stay in floating point")),
    _flag("--int4-quantization-mode", ONE, left_out("adapters stay in floating point")),
    *_QUIET,
)

_EXTRACT_ADAPTERS = (
    _flag("-m --model-name-or-path", ONE, changed("an ONNX model with LoRA in its graph")),
    _flag("-o --output --output-path", ONE, _SAME),
    _flag("-f --format", ONE, changed(_FORMAT), adapter_format),
    _flag("--dtype", ONE, left_out("matrices stay in the type that the graph has them in")),
    _flag("--cache-dir", ONE, left_out("nothing is downloaded")),
    *HF,
    *_QUIET,
)

_GENERATE_ADAPTER = (
    *MODEL,
    _flag("--adapter-type", ONE, changed("LoRA is taken out of a graph"), adapter_type),
    _flag("--adapter-format", ONE, changed(_FORMAT), adapter_format),
    *CACHE,
    *_QUIET,
)

COMMANDS: Mapping[str, OliveCommand] = {
    "auto-opt": OliveCommand(_AUTO_OPT, changed("drupe optimize"), "auto-opt-output"),
    "optimize": OliveCommand(_OPTIMIZE, kept("drupe optimize takes these flags as well"), "optimized-model"),
    "quantize": OliveCommand(
        _QUANTIZE, changed("drupe optimize: a package is made, of a checkpoint too"), "quantized-model"
    ),
    "capture-onnx-graph": OliveCommand(
        _CAPTURE, changed("drupe optimize, without quantizing unless asked"), "onnx-model"
    ),
    "run": OliveCommand(_RUN, kept("drupe run takes these flags as well")),
    "run-pass": OliveCommand(
        _RUN_PASS, changed("drupe optimize with what the pass asks for, or drupe run-pass"), "run-pass-output"
    ),
    "tune-session-params": OliveCommand(
        _TUNING,
        changed("drupe run-pass tune-session: a package with the settings in it, not a file with settings"),
        "tuned-inference-settings",
    ),
    "convert-adapters": OliveCommand(_CONVERT_ADAPTERS, kept("drupe convert-adapters takes these flags as well")),
    "extract-adapters": OliveCommand(_EXTRACT_ADAPTERS, kept("drupe extract-adapters takes these flags as well")),
    "generate-adapter": OliveCommand(_GENERATE_ADAPTER, changed("drupe extract-adapters"), "optimized-model"),
    "benchmark": OliveCommand(_BENCHMARK, changed("drupe benchmark; with tasks, drupe evaluate --evaluator lm-eval")),
}
"""Commands that are carried out. One that Drupe has as well also takes all of Drupe's own flags."""

NOT_DONE: Mapping[str, Answer] = {
    "benchmark": missing("there is no command that runs tasks of lm-eval", "drupe evaluate PACKAGE --against MODEL"),
    "finetune": changed(
        "drupe finetune, of the plugin drupe-finetune, takes its common flags as well", "pip install 'drupe[finetune]'"
    ),
    "diffusion-lora": missing("models are not trained", "train with diffusers"),
    "generate-cost-model": missing("models are not cut, so their parts are not counted", "drupe inspect MODEL"),
    "generate-model-package": missing("packages are folders, not archives", "pack the folders yourself"),
    "shared-cache": missing("the cache is a folder", "drupe cache list, size, clean or verify"),
    "configure-qualcomm-sdk": missing("compiling for QNN", "the vendor's own tool; a plugin can bring the provider"),
    "init": missing("there are no questions and answers", "drupe optimize MODEL -o OUT; drupe optimize --help"),
}
"""Commands of Olive's that are not carried out, unless a plugin of Drupe has one of that name."""
