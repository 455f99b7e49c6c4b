"""Finishing a line: what its flags ask for together, as arguments of one of Drupe's commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from drupe.api import UsageError, flag, registry, replace
from drupe_olive_compat import harness
from drupe_olive_compat.answers import Ledger, changed, kept, left_out, missing
from drupe_olive_compat.flag_table import OliveCommand
from drupe_olive_compat.flags import Line

PLAIN = {"model": "-m", "output": "-o", "provider": "--provider", "device": "--device", "precision": "--precision"}
"""What has a flag of the same meaning in Drupe's commands."""
ALGORITHMS: Mapping[str, tuple[str, str]] = {
    "rtn": ("Rtn", "OnnxBlockWiseRtnQuantization"),
    "gptq": ("Gptq", "Gptq"),
    "awq": ("AutoAWQQuantizer", "AutoAWQQuantizer"),
    "hqq": ("OnnxHqqQuantization", "OnnxHqqQuantization"),
    "kquant": ("KQuant", "OnnxKQuantQuantization"),
    "quarot": ("QuaRot", "QuaRot"),
    "spinquant": ("SpinQuant", "SpinQuant"),
    "lpbq": ("AimetQuantization", "AimetQuantization"),
    "seqmse": ("AimetQuantization", "AimetQuantization"),
    "adaround": ("AimetQuantization", "AimetQuantization"),
}
"""Olive's pass for an algorithm: of a checkpoint, and of an ONNX graph."""
IMPLEMENTATIONS: Mapping[str, str] = {
    "bnb": "OnnxBnb4Quantization",
    "nvmo": "NVModelOptQuantization",
    "aimet": "AimetQuantization",
    "autogptq": "GptqQuantizer",
    "awq": "AutoAWQQuantizer",
    "quarot": "QuaRot",
    "spinquant": "SpinQuant",
}
"""Olive's pass for an implementation that has one alone."""
WITH_DATA = {
    "ort": ("OnnxDynamicQuantization", "OnnxStaticQuantization"),
    "inc": ("IncDynamicQuantization", "IncStaticQuantization"),
}
"""Olive's passes of an implementation without data, and with it."""
_A_PACKAGE = "a package for onnxruntime is made, not a checkpoint"
CALIBRATED = ("Gptq", "GptqQuantizer")
DATA = ("data_name", "data_files", "subset", "split", "text_field", "max_seq_len", "max_samples")


def finish(line: Line, command: OliveCommand) -> list[str]:
    """The name of Drupe's command, and its arguments."""
    makes = "--plan" not in line.arguments and "list_passes" not in line.given
    if command.output and line.olives and makes and "output" not in line.given:
        line.given["output"] = command.output
        line.ledger.say("--output_path", changed(f"none is given: {command.output}, as in Olive"))
    return _FINISH.get(line.command, _as_it_is)(line)


def _as_it_is(line: Line) -> list[str]:
    """A command that Drupe has: what was not passed on already, in its own spelling."""
    arguments = list(line.arguments)
    for name, plain in PLAIN.items():
        if name in line.given and name not in line.passed:
            arguments += [plain, str(line.given[name])]
    if line.given.get("symmetric") is False:
        arguments.append("--asymmetric")
    return [line.command, *arguments, *_of_builder(line)]


def _optimize(line: Line) -> list[str]:
    if line.olives and "precision" not in line.given and line.command == "auto-opt":
        line.ledger.say("--precision", changed("none is given: int4, and not fp32 as in Olive"))
    return _as_it_is(line)


def _of_builder(line: Line) -> list[str]:
    """The options of the builder as flags of `drupe optimize`."""
    if not line.builder:
        return []
    from drupe_olive_compat.builder_options import BUILDER
    from drupe_olive_compat.chain import Chain, request_of
    from drupe_olive_compat.options import DEPTHS
    from drupe_olive_compat.sources import CHECKPOINT, Source

    precision = str(line.given.get("precision", "int4"))
    chain = Chain(Source("", CHECKPOINT), "", line.ledger, bits=DEPTHS.get(precision, 0), precision=precision)
    for name, value in line.builder.items():
        typed = line.flags_of[name]
        place = typed if name in typed.replace("-", "_") else f"{typed} {name}"
        treatment = BUILDER.get(name)
        answer = treatment(chain, value, place) if treatment else left_out("the builder has no such option")
        if answer is not None:
            line.ledger.say(place, answer)
    _, options, settings = request_of(chain)
    return [*_options(options), *_settings(settings)]


def _run_pass(line: Line) -> list[str]:
    """A pass of Olive's as in a workflow file; one of Drupe's as it is."""
    if line.given.get("list_passes"):
        return ["passes"]
    from drupe_olive_compat.pass_table import rule_of

    name = line.given.get("pass_name")
    if name is None:
        model = [str(line.given["model"])] if "model" in line.given else []
        return ["run-pass", *line.arguments, *model]
    config = _json(line)
    if name in registry().passes:
        sets = [word for key, value in config.items() for word in ("--set", f"{key}={json.dumps(value)}")]
        output = ["-o", str(line.given["output"])] if "output" in line.given and "output" not in line.passed else []
        return ["run-pass", str(name), _model(line), *line.arguments, *output, *sets]
    passes = {"pass": {"type": name, **config}}
    if not _is_graph(_model(line)) and not rule_of(str(name))[1].exports:
        passes["export"] = {"type": "ModelBuilder", "precision": "fp32"}  # what is not quantized
        line.ledger.say(str(name), changed(_A_PACKAGE))
    for key in config:
        line.flags_of[f"passes.pass.{key}"] = f"{line.flags_of['pass_config']} {key}"
    return _by_document(line, passes)


def _benchmark(line: Line) -> list[str]:
    """What Drupe's command measures, without an output. Tasks of lm-eval are measured by an evaluator."""
    if "output" in line.given and "output" not in line.passed:
        line.ledger.say(line.flags_of["output"], left_out("what is measured is printed; --json prints it for programs"))
    model = [str(line.given["model"])] if "model" in line.given else []
    mine = [name for name in ("tasks", "limit", "max_length") if name in line.given and name not in line.passed]
    given = {name: line.given[name] for name in mine}
    if "tasks" not in given:
        for name in given:
            line.ledger.say(line.flags_of[name], left_out("it is of --tasks"))
        return ["benchmark", *line.arguments, *model]
    if not harness.can_run():
        line.ledger.say(line.flags_of["tasks"], missing("lm-eval is not installed", harness.INSTALL))
        return []
    given["tasks"] = ",".join(map(str, given["tasks"]))
    sets = [word for name, value in given.items() for word in ("--set", f"{harness.EVALUATOR}.{name}={value}")]
    return ["evaluate", *line.arguments, *model, "--evaluator", harness.EVALUATOR, *sets]


def _tune(line: Line) -> list[str]:
    """Session tuning: a package of the model, with the settings in it."""
    from drupe_olive_compat.chain import Chain
    from drupe_olive_compat.flags import plain
    from drupe_olive_compat.sources import GRAPH, Source
    from drupe_olive_compat.tuning_options import TUNES, TUNING

    chain = Chain(Source("", GRAPH), "", line.ledger)
    listed = line.given.get("providers_list", [])
    if len(listed) == 1:
        line.given["provider"] = listed[0]
    for name, typed in line.flags_of.items():
        value = line.given[name]
        values = [plain(each) for each in value] if isinstance(value, list) else plain(value)
        if (treatment := TUNING.get(name)) and (answer := treatment(chain, values, typed)):
            line.ledger.say(typed, answer)
    words = list(line.arguments)
    for name in ("output", "provider", "device"):
        words += [PLAIN[name], str(line.given[name])] if name in line.given else []
    for key, value in chain.settings.get(TUNES, {}).items():
        words += ["--set", f"{key}={json.dumps(value, separators=(',', ':'))}"]
    return ["run-pass", TUNES, _model(line), *words]


def _json(line: Line) -> dict[str, Any]:
    text = str(line.given.get("pass_config") or "{}")
    try:
        config = json.loads(text)
    except ValueError as error:
        raise UsageError(f"it is not JSON: {error}", where=line.flags_of["pass_config"]) from error
    if not isinstance(config, dict):
        raise UsageError("it is no mapping of options", where=line.flags_of["pass_config"], cure='{"bits": 4}')
    return config


def _capture(line: Line) -> list[str]:
    """Export: nothing is quantized, unless a builder is asked for int4."""
    builds = "use_model_builder" in line.given or "use_mobius_builder" in line.given
    precision = line.given.get("precision") if builds else None
    if "precision" in line.given and not builds:
        line.ledger.say("--precision", left_out("it is of the builders; --torch_dtype says the type of an export"))
    precision = precision or line.given.get("torch_dtype") or ("fp16" if builds else "fp32")
    on_gpu = str(precision) in ("fp16", "bf16") and builds
    line.given.setdefault("provider", "CUDAExecutionProvider" if on_gpu else "CPUExecutionProvider")
    line.ledger.say("--precision", kept(f"{precision}, for {line.given['provider']}, as in Olive"))
    for name in line.builder:
        line.flags_of[f"passes.export.{name}"] = line.flags_of[name]
    kind = "ModelBuilder" if builds else "OnnxConversion"
    return _by_document(line, {"export": {"type": kind, "precision": precision, **line.builder}})


def _quantize(line: Line) -> list[str]:
    """One algorithm; a checkpoint becomes a package and not a checkpoint."""
    is_graph = _is_graph(_model(line))
    name = _quantizing_pass(line, is_graph)
    options: dict[str, Any] = {"type": name}
    precision = str(line.given.get("precision") or "int4")
    if "precision" not in line.given:
        line.ledger.say("--precision", changed("none is given: weights of 4 bits"))
    if precision not in ("int4", "int8"):
        raise UsageError(f"{precision} is no precision to quantize to", where="--precision", cure="int4 or int8")
    if "symmetric" in line.given:
        options["sym"] = line.given["symmetric"]
    if name in CALIBRATED:
        options |= _data(line)
    else:
        for each in DATA:
            if each in line.given:
                line.ledger.say(line.flags_of[each], left_out("no text is read: the weights are not calibrated"))
    passes = {"quantize": {**options, "bits": int(precision.removeprefix("int"))}}
    if not is_graph:
        passes["export"] = {"type": "ModelBuilder", "precision": precision}
        line.ledger.say("quantize", changed(_A_PACKAGE))
    return _by_document(line, passes)


def _quantizing_pass(line: Line, is_graph: bool) -> str:
    """The type of Olive's pass."""
    implementation = str(line.given.get("implementation", "olive"))
    if implementation in WITH_DATA:
        return WITH_DATA[implementation]["data_name" in line.given or "data_files" in line.given]
    if implementation in IMPLEMENTATIONS:
        return IMPLEMENTATIONS[implementation]
    algorithm = str(line.given.get("algorithm", "rtn"))
    if implementation != "olive" or algorithm not in ALGORITHMS:
        wrong, place = (algorithm, "--algorithm") if implementation == "olive" else (implementation, "--implementation")
        known = ALGORITHMS if implementation == "olive" else {"olive": "", **IMPLEMENTATIONS, **WITH_DATA}
        raise UsageError(f"there is no '{wrong}'", where=place, cure=", ".join(known))
    return ALGORITHMS[algorithm][is_graph]


def _data(line: Line) -> dict[str, Any]:
    """The text to calibrate with, as a data config; a file is an argument of its own."""
    given = line.given
    if "data_files" in given:
        line.arguments += ["--calibration-data", str(given["data_files"])]
    for name, option in (("max_samples", "--calibration-sequences"), ("max_seq_len", "--calibration-length")):
        if name in given:
            line.arguments += [option, str(given[name])]
    if "data_name" not in given:
        return {}
    loading = {key: given[key] for key in ("data_name", "subset", "split") if key in given}
    columns = {"text_cols": [given["text_field"]]} if "text_field" in given else {}
    return {"data_config": {"name": "text", "load_dataset_config": loading, "pre_process_data_config": columns}}


_NOT_TYPED = (
    "output_dir", "target", "passes.export (ModelBuilder)", "passes.export.precision", "input_model.model_path",
)  # fmt: skip
"""Places of the workflow file that no flag stands for, unless one says so."""


def _by_document(line: Line, passes: Mapping[str, Any]) -> list[str]:
    """Arguments of `drupe optimize` for passes of Olive, by way of the workflow file that Olive would make."""
    from drupe_olive_compat.reading import read

    model = _model(line)
    source = {"type": "ONNXModel" if _is_graph(model) else "HfModel", "model_path": model}
    device = {name: line.given[name] for name in ("device",) if name in line.given}
    provider = {"execution_providers": [line.given["provider"]]} if "provider" in line.given else {}
    target = {"target": {"type": "LocalSystem", "accelerators": [{**device, **provider}]}} if device or provider else {}
    document = {"input_model": source, "passes": dict(passes), "output_dir": line.given.get("output"), **target}
    answered = read(document, "")
    assert answered is not None
    workflow, notices = answered
    told = Ledger()
    for notice in notices:
        if notice.about in _NOT_TYPED and notice.about not in line.flags_of:
            told.notices += [notice] if notice.handling == "missing" else []
        else:
            told.notices.append(_named(notice, line))
    line.ledger.notices += told.notices
    return ["optimize", *_of_workflow(workflow), *line.arguments] if workflow is not None else []


def _named(notice: Any, line: Line) -> Any:
    """A notice that names the flag instead of the place in a file."""
    about = line.flags_of.get(notice.about)
    return replace(notice, about=about or notice.about.removeprefix("passes."))


def _of_workflow(workflow: Mapping[str, Any]) -> list[str]:
    target = workflow["target"]
    arguments = [str(workflow["model"]), "--precision", target["precision"]]
    arguments += ["--provider", target["provider"]] if target.get("provider") else []
    arguments += ["-o", str(workflow["output"])] if workflow.get("output") else []
    return [*arguments, *_options(workflow.get("options", {})), *_settings(workflow.get("settings", {}))]


def _options(options: Mapping[str, Any]) -> list[str]:
    """Options of Drupe as flags."""
    declared, words = registry().options, []
    for name, value in options.items():
        off = declared[name].off if name in declared else ""
        if value is False and off:
            words.append(flag(off))
        elif isinstance(value, bool):
            words.append(flag(name))
        else:
            for each in value if isinstance(value, list) else [value]:
                words += [flag(name), str(each)]
    return words


def _settings(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        word
        for owner, keys in settings.items()
        for key, value in keys.items()
        for word in ("--set", f"{owner}.{key}={json.dumps(value)}")
    ]


def _model(line: Line) -> str:
    if "model" not in line.given:
        raise UsageError("no model is named", cure=f"drupe {line.command} -m MODEL")
    return str(line.given["model"])


def _is_graph(model: str) -> bool:
    """Whether a name is that of an ONNX file, or of a folder with one."""
    path = Path(model)
    return model.casefold().endswith(".onnx") or (path.is_dir() and next(path.glob("*.onnx"), None) is not None)


def _generate_adapter(line: Line) -> list[str]:
    return ["extract-adapters", *_as_it_is(line)[1:]]


_FINISH: Mapping[str, Callable[[Line], list[str]]] = {
    "auto-opt": _optimize,
    "quantize": _quantize,
    "capture-onnx-graph": _capture,
    "run-pass": _run_pass,
    "benchmark": _benchmark,
    "tune-session-params": _tune,
    "generate-adapter": _generate_adapter,
}
