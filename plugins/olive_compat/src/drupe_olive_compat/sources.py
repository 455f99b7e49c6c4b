"""Source: the model of a file, and whether Drupe can take it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from drupe.api import ModelError, Record, UsageError, registry, replace, resolve
from drupe_olive_compat.answers import Answer, Ledger, changed, kept, left_out, missing
from drupe_olive_compat.components import Component
from drupe_olive_compat.model_names import named
from drupe_olive_compat.values import NOT_GIVEN, a_text

FAMILIES = "drupe_decoder_families"
"""The hook that lists the families of decoders that are built."""
ANOTHER = "--model MODEL names another model"
CHECKPOINT, GRAPH = "checkpoint", "graph"
EMBEDDINGS = "feature-extraction"
TASKS = ("", "text-generation", "text-generation-with-past", EMBEDDINGS)
"""The tasks of decoders; "" for a file that names none."""
_TYPES = {
    "hfmodel": CHECKPOINT,
    "pytorchmodel": CHECKPOINT,
    "onnxmodel": GRAPH,
}
_OTHER_TYPES = {
    "compositemodel": "a model of several ONNX files",
    "diffusersmodel": "a pipeline of diffusers",
    "openvinomodel": "a model of OpenVINO",
    "qnnmodel": "a model compiled for QNN",
    "qairtmodel": "a model of QAIRT",
    "qairtpreparedmodel": "a model of QAIRT",
    "tensorflowmodel": "a model of TensorFlow",
    "distributedhfmodel": "a model in several parts for several devices",
    "distributedonnxmodel": "a model in several parts for several devices",
    "optimummodel": "a model of optimum",
    "snpemodel": "a model of SNPE",
    "compositepytorchmodel": "a model of several parts",
    "distributedpytorchmodel": "a model in several parts for several devices",
}
_ANSWERED = ("model_path", "onnx_file_name", "task")
"""Options that have their answer with the model's own."""
_PICKLED = (".pt", ".pth", ".bin", ".pkl", ".ckpt")
_PICKLE = missing("a pickled model is not read", "save it as safetensors, with its config.json, and name the folder")
_PLACEHOLDERS = ("model_path", "model_task", "/path/to", "<")


def is_placeholder(value: str) -> bool:
    """Whether a text stands for what the user is to write."""
    return value.casefold().startswith(_PLACEHOLDERS)


class Source(Record):
    """What is optimized. kind: CHECKPOINT or GRAPH. more: what it takes beside text; task: as far as it is known.

    adapter: the folder of its adapter, which is merged into it, unless it is switched at run time (switches).
    """

    reference: str
    kind: str
    more: str = ""
    revision: str = ""
    task: str = ""
    adapter: str = ""
    switches: bool = False

    @property
    def form(self) -> str | dict[str, Any]:
        """The source as a workflow file of Drupe's has it."""
        adapter = {"adapters": [self.adapter] if self.adapter else []} if self.switches else {"adapter": self.adapter}
        options = {"revision": self.revision, **adapter}
        given = {name: value for name, value in options.items() if value}
        return {"reference": self.reference, **given} if given else self.reference


def source_of(part: Component, replacement: str, ledger: Ledger) -> Source:
    """The source that a file's `input_model` names, or the one that the user names instead."""
    part = _without_hf_config(part, ledger)
    found = _replaced(part, replacement, ledger) if replacement else _of_the_file(part, ledger)
    for name, value in part.options.items():
        if replacement and name in ("model_path", "onnx_file_name"):
            continue
        if name == "load_kwargs":
            for key, each in _loading(part).items():
                answer = NOT_GIVEN if each is None else _answer(_LOADING, key, each, replacement)
                ledger.say(part.at(f"{name}.{key}"), answer)
        elif name not in _ANSWERED or replacement:
            ledger.say(part.at(name), _answer(_OPTIONS, name, value, replacement))
    return found


def _loading(part: Component) -> Mapping[str, Any]:
    """What is handed to transformers when it loads the model."""
    loading = part.options.get("load_kwargs", {})
    if not isinstance(loading, Mapping):
        raise UsageError(f"{loading!r} does not fit: a mapping of keys is wanted", where=part.at("load_kwargs"))
    return loading


def task_of(source: Source) -> str:
    """The task of a source. A model of this machine is looked at; "" where nothing tells."""
    if source.task or not source.reference or not Path(source.reference).expanduser().exists():
        return source.task
    try:
        return resolve(source.reference, {}, registry()).task or ""
    except ModelError:
        return ""  # the error is told when the file is carried out


def _without_hf_config(part: Component, ledger: Ledger) -> Component:
    """`hf_config`, as before Olive 0.7, says what an HfModel says now."""
    held = part.options.get("hf_config")
    if held is None:
        return part
    if not isinstance(held, Mapping):
        raise UsageError(f"{held!r} does not fit: a mapping of keys is wanted", where=part.at("hf_config"))
    now: dict[Any, str] = {
        "model_name": "model_path",
        "from_pretrained_args": "load_kwargs",
        "model_loading_args": "load_kwargs",
    }
    options = {key: value for key, value in part.options.items() if key != "hf_config"}
    options |= {now.get(key, str(key)): value for key, value in held.items()}
    ledger.say(part.at("hf_config"), kept("read as an HfModel"))
    return Component(part.place, "HfModel", options)


def _replaced(part: Component, replacement: str, ledger: Ledger) -> Source:
    """The model that the user names, which is looked at where it is on this machine."""
    ledger.say(part.at("model_path"), changed(f"{replacement}, as --model says"))
    if not Path(replacement).expanduser().exists():
        if replacement.casefold().endswith(".onnx"):
            return Source(replacement, GRAPH)
        return _by_name(part, replacement, ledger)
    try:
        model = resolve(replacement, {}, registry())
    except ModelError as error:
        ledger.say(part.place, missing(error.what, error.cure or ANOTHER))
        return Source(replacement, CHECKPOINT)
    return Source(replacement, GRAPH if model.kind == "onnx" else CHECKPOINT, task=model.task or "")


def _of_the_file(part: Component, ledger: Ledger) -> Source:
    kind, path = part.type.casefold(), part.options.get("model_path", "")
    if _TYPES.get(kind) != GRAPH:
        _say_task(part, ledger)
    if isinstance(path, Mapping):
        ledger.say(part.at("model_path"), missing("a model in a registry of Azure is not looked for", ANOTHER))
        return Source("", CHECKPOINT)
    path = a_text(path, part.at("model_path"))
    if not part.type:
        ledger.say(part.place, missing("it has no type, so nobody knows what it is; Olive refuses it", ANOTHER))
    elif kind not in _TYPES:
        what = _OTHER_TYPES.get(kind, f"a model of the type {part.type}")
        ledger.say(part.place, missing(f"{what} is no source of Drupe", f"{ANOTHER}: a checkpoint or an ONNX file"))
    if not path or is_placeholder(path):
        ledger.say(part.at("model_path"), missing(f"no model is named, only a placeholder ('{path}')", ANOTHER))
        return Source(path, _TYPES.get(kind, CHECKPOINT))
    return (_graph if _TYPES.get(kind) == GRAPH else _checkpoint)(part, path, ledger)


def _graph(part: Component, path: str, ledger: Ledger) -> Source:
    name = a_text(part.options.get("onnx_file_name") or "", part.at("onnx_file_name"))
    path = f"{path.rstrip('/')}/{name}" if name else path
    ledger.say(part.at("model_path"), kept(f"the ONNX graph {path}"))
    if "task" in part.options:
        ledger.say(part.at("task"), left_out("the graph's inputs and outputs show what it is for"))
    return Source(path, GRAPH)


def _say_task(part: Component, ledger: Ledger) -> None:
    task = str(part.options.get("task", ""))
    if is_placeholder(task):
        ledger.say(part.at("task"), left_out(f"no task is named, only a placeholder ('{task}')"))
    elif task not in TASKS:
        cure = "export it to ONNX with another tool, and name the .onnx file with --model"
        ledger.say(part.at("task"), missing(f"models for {task} are not built from a checkpoint", cure))
    elif task:
        ledger.say(part.at("task"), kept("the checkpoint's own configuration says what it is for, and decides"))


def _checkpoint(part: Component, path: str, ledger: Ledger) -> Source:
    if "model_script" in part.options or "model_loader" in part.options:
        ledger.say(part.at("model_path"), left_out(f"{path}, which a Python file of the workflow loads"))
        return Source(path, CHECKPOINT)
    if path.casefold().endswith(_PICKLED):
        ledger.say(part.at("model_path"), _PICKLE)
        return Source(path, CHECKPOINT)
    revision = a_text(_loading(part).get("revision") or "", part.at("load_kwargs.revision"))
    adapter = a_text(part.options.get("adapter_path") or "", part.at("adapter_path"))
    return replace(_by_name(part, path, ledger), revision=revision, adapter=adapter)


def _by_name(part: Component, path: str, ledger: Ledger) -> Source:
    """A checkpoint as far as its name tells; a folder of this machine is looked at when the file is carried out."""
    known = named(path) if not Path(path).expanduser().exists() else None
    if known is None:
        ledger.say(part.at("model_path"), kept(f"{path}; its architecture shows when it is looked for (--plan)"))
        return Source(path, CHECKPOINT)
    if known.family not in _families():
        what = known.what or f"a model of the family '{known.family}'"
        cure = "drupe inspect --families lists what is built; a graph that another tool exported is taken with --model"
        ledger.say(part.at("model_path"), missing(f"{path} is {what}, whose architecture is not built", cure))
    else:
        ledger.say(part.at("model_path"), kept(f"{path}, built as the family {known.family}"))
    return Source(path, CHECKPOINT, known.more, task=EMBEDDINGS if "embedding" in path.casefold() else "")


def _families() -> set[str]:
    return {entry.ref.name for entry in registry().offered("decoder family", FAMILIES)}


def _answer(table: Mapping[str, Callable[[Any], Answer]], name: str, value: Any, replacement: str) -> Answer:
    """What is done about an option of the model. A model that the user names needs none of what made the file's."""
    if replacement and name in _MAKES_THE_MODEL:
        return left_out("--model names another model, which needs none")
    if name in table:
        return table[name](value)
    return left_out("no option of this name decides on the package")


def _script(value: Any) -> Answer:
    what = f"the Python file or function '{value}' makes the model, and Drupe runs no code of a workflow"
    return missing(what, "run it yourself, export the model to ONNX, and name the .onnx file with --model")


def _trust(value: Any) -> Answer:
    return left_out("Drupe runs no code from a checkpoint, and needs none")


def _quantization(value: Any) -> Answer:
    return missing("quantizing while the checkpoint is loaded", "leave it out: a pass of the file quantizes")


def _says(answer: Answer) -> Callable[[Any], Answer]:
    return lambda value: answer


_OWN_TYPE = _says(left_out("weights are read in the checkpoint's own type; the precision says what they become"))
_NAMES = _says(left_out("the graph has the names that its runtime expects"))
_DEVICES = _says(left_out("a checkpoint is read from its files, and never loaded as a whole"))

_MAKES_THE_MODEL = (
    "model_script", "model_loader", "script_dir", "dummy_inputs_func", "io_config", "adapter_path", "task",
    "model_file_format", "constant_inputs_file_name", "external_initializers_file_name", "revision",
)  # fmt: skip

_OPTIONS: Mapping[str, Callable[[Any], Answer]] = {
    "model_script": _script,
    "model_loader": _script,
    "script_dir": _script,
    "dummy_inputs_func": _says(left_out("nothing is traced, so no inputs are made up")),
    "io_config": _NAMES,
    "model_attributes": _says(left_out("attributes are read from the model's own configuration")),
    "adapter_path": lambda value: kept(f"the adapter {value} is merged into the weights"),
    "model_file_format": _says(_PICKLE),
    "use_ort_extensions": _says(left_out("packages need no onnxruntime-extensions in their session")),
    "inference_settings": _says(left_out("settings of a session are not taken over from a model")),
    "external_initializers_file_name": _says(left_out("the graph itself names the files of its weights")),
    "constant_inputs_file_name": _says(
        missing("constant inputs in a file of their own", "make them initializers of the graph")
    ),
    "generative": _says(left_out("the checkpoint's own configuration says what it is")),
    "dataset": _says(left_out("a data set of the model; nothing that is done here reads one")),
    "components": _says(
        missing("a model in components of a script's own", "name a checkpoint that is a decoder as a whole")
    ),
    "test_model_path": _says(left_out("it is for Olive's own tests")),
    "test_model_config": _says(left_out("it is for Olive's own tests")),
}

_LOADING: Mapping[str, Callable[[Any], Answer]] = {
    "torch_dtype": _OWN_TYPE,
    "dtype": _OWN_TYPE,
    "attn_implementation": _says(left_out("attention becomes the target's own operator")),
    "trust_remote_code": _trust,
    "revision": lambda value: kept(f"the revision {value}"),
    "device_map": _DEVICES,
    "max_memory": _DEVICES,
    "low_cpu_mem_usage": _DEVICES,
    "use_safetensors": _says(left_out("only safetensors are read")),
    "quantization_method": _quantization,
    "quantization_config": _quantization,
}
