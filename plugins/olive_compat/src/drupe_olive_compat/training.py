"""Olive's passes that train an adapter: the pass `finetune`, which trains the checkpoint before all others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe.api import UsageError, registry
from drupe_olive_compat.answers import OFF, Answer, changed, is_off, kept, left_out, missing
from drupe_olive_compat.chain import Chain
from drupe_olive_compat.components import Component
from drupe_olive_compat.data_configs import READING, DataConfig, data_config
from drupe_olive_compat.options import Treatment, number, says, whole
from drupe_olive_compat.rules import Effect

FINETUNE, TRAIN_ON = "finetune", "train_on"
BESIDE, KEEP = "train-adapter", "keep_adapter"
"""The pass that keeps what it trains beside the base model, and the option that names it."""
INSTALL = "pip install 'drupe[finetune]'"
DEFAULTS: Mapping[str, Any] = {"rank": 64, "alpha": 16, "dropout": 0.05, "epochs": 3.0}
"""What Olive's passes train with where the file states nothing. The size of a batch and the rate are Drupe's too."""
SCHEDULE = "constant"
TWICE = missing(
    "training twice in one file", "a file for each training; drupe finetune MODEL --data DATA --merge -o OUT"
)


def training(method: str, **own: Any) -> Effect:
    """Training an adapter of a kind, which is merged into the checkpoint. own: other settings of the pass finetune."""

    def effect(chain: Chain, part: Component) -> None:
        if chain.trains:
            chain.ledger.say(part.title, TWICE)
            return
        chain.trains = part.title
        if FINETUNE not in registry().passes:
            chain.ledger.say(part.title, missing("training, whose plugin drupe-finetune is not installed", INSTALL))
        if chain.bits:
            what = "the checkpoint is trained before its weights are quantized, not after"
            chain.ledger.say(part.title, changed(what))
        settings = _settings(chain)
        if TRAIN_ON not in chain.options and not part.options.get("train_data_config"):
            chain.ledger.say(part.at("train_data_config"), missing("no data to train on is named", "add it"))
        if is_off(part.options.get("target_modules")):
            what = "all linear modules get an adapter; Olive takes those that peft lists for the architecture"
            chain.ledger.say(part.at("target_modules"), _LINEAR if method in _ALL_LINEAR else changed(what))
        defaults = {key: value for key, value in DEFAULTS.items() if key != "dropout" or method not in _ALL_LINEAR}
        if "max_steps" in settings:
            del defaults["epochs"]
        chain.settings[FINETUNE] = {"method": method, **own, **defaults, **settings}
        chain.settings[FINETUNE]["training"] = {"lr_scheduler_type": SCHEDULE, **settings.get("training", {})}

    return effect


_ALL_LINEAR = ("loha", "lokr")
"""The methods for which Olive, too, takes all linear modules, and for which lora_dropout is not read."""


def _settings(chain: Chain) -> dict[str, Any]:
    """The settings of the pass finetune so far."""
    return chain.settings.setdefault(FINETUNE, {})


def _sets(name: str) -> Treatment:
    """Set a key of the pass finetune to the value."""

    def treat(chain: Chain, value: Any, place: str) -> Answer:
        if value is None:
            return OFF
        _settings(chain)[name] = value
        return kept(f"{name} of the training: {value!r}")

    return treat


def _sets_number(name: str) -> Treatment:
    def treat(chain: Chain, value: Any, place: str) -> Answer | None:
        return _sets(name)(chain, value if value is None else number(value, place), place)

    return treat


def _through(owner: str, name: str) -> Treatment:
    """Hand a value on to one of the libraries. owner: the key of finetune for its arguments."""

    def treat(chain: Chain, value: Any, place: str) -> Answer:
        if value is None or value == {}:
            return OFF
        _settings(chain).setdefault(owner, {})[name] = value
        return kept(f"{name} of {LIBRARIES[owner]}: {value!r}")

    return treat


LIBRARIES = {"training": "transformers' TrainingArguments", "peft": "peft's configuration of the adapter"}


_LINEAR = kept("all linear modules get an adapter")


def _targets(chain: Chain, value: Any, place: str) -> Answer | None:
    if is_off(value):
        return None
    if value == "all-linear":
        return _LINEAR
    names = value if isinstance(value, list) else [value]
    return _kept(_sets("targets")(chain, [str(each) for each in names], place))


def _kept(answer: Answer | None) -> Answer:
    assert answer is not None
    return answer


def _data(chain: Chain, value: Any, place: str) -> Answer:
    """The data to train on: a data set of the hub, or a file, where its data config needs no code."""
    cure = "write the rows to a file (JSON lines, CSV, parquet), and name it in data_files, with data_name json"
    if value is None:
        return missing("no data to train on is named", "add a data config")
    data = data_config(chain, value, cure)
    if data.lacks is not None:
        return data.lacks
    if not data.reference:
        return missing(f"the data config {data.name} names no data set", cure)
    settings = _settings(chain)
    chain.options[TRAIN_ON] = f"{data.reference}{f'@{data.split}' if data.split else ''}"
    chain.stated[TRAIN_ON] = place
    settings.update(_text_of_a_row(data))
    settings["packing"] = str(data.processing.get("strategy", "join")).startswith("join")
    for key, each in data.processing.items():
        if key not in READING:
            answer = _PROCESSED[key](chain, each, place) if key in _PROCESSED else left_out("it has no effect here")
            if answer is not None:
                chain.ledger.say(f"data_configs.{data.name}.{key}", answer)
    return kept(f"trained on {chain.options[TRAIN_ON]}")


def _text_of_a_row(data: DataConfig) -> dict[str, Any]:
    """How a row becomes text: a chat, a template, or a column."""
    if data.processing.get("chat_template"):
        return {"messages": str(data.processing.get("message_col") or "messages")}
    if data.processing.get("text_template"):
        return {"template": str(data.processing["text_template"])}
    if len(data.columns) > 1:
        return {"template": " ".join(f"{{{each}}}" for each in data.columns)}
    return {"column": data.columns[0]}


def _chat(chain: Chain, value: Any, place: str) -> Answer:
    if is_off(value):
        return OFF
    if value is True:
        return kept("the model's own chat template; the loss is on the answers")
    return changed("the model's own chat template, and not the one in the file; the loss is on the answers")


def _strategy(chain: Chain, value: Any, place: str) -> Answer:
    if str(value) in ("join", "line-by-line"):
        return kept(f"packing of the training: {_settings(chain)['packing']}")
    return changed("sequences neither overlap nor are drawn at random; the order of rows follows the seed")


def _most(chain: Chain, value: Any, place: str) -> Answer:
    return OFF if not value else _kept(_sets("max_sequences")(chain, whole(value, place), place))


_END = says(changed("an end token stands behind each row, and the rest as the tokenizer has it"))
_FILLED = says(left_out("batches are filled up to their longest row"))
_PROCESSED: Mapping[str, Treatment] = {
    "strategy": _strategy,
    "max_seq_len": _sets("max_length"),
    "max_samples": _most,
    "chat_template": _chat,
    "message_col": says(kept("the column of chat messages, where there is a chat template")),
    "text_template": says(kept("the template of the training")),
    "text_formatting_func": says(missing("a Python function that writes the text", "text_template")),
    "add_special_tokens": _END,
    "joiner": _END,
    **dict.fromkeys(("pad_to_max_len", "padding_side", "use_attention_mask", "drop_short_sequences"), _FILLED),
    "stride": says(changed("sequences do not overlap")),
    **dict.fromkeys(("random_seed", "random_retries"), says(left_out("nothing is drawn at random but the order"))),
    "processing_batch_size": says(left_out("rows are read one by one")),
}


def _evaluated_on(chain: Chain, value: Any, place: str) -> Answer:
    if value is None:
        return OFF
    what = "a loss on other data changes nothing in what is trained"
    return left_out(what, "the key evaluated of the training holds out a share of the rows, and tells their loss")


def _arguments(chain: Chain, value: Any, place: str) -> Answer | None:
    """The training's arguments, each with a line of its own."""
    if value is None:
        return OFF
    if not isinstance(value, Mapping):
        raise UsageError(f"{value!r} does not fit: a mapping of keys is wanted", where=place)
    more = value.get("extra_args")
    for key, each in {**value, **(more if isinstance(more, Mapping) else {})}.items():
        if key == "extra_args":
            continue
        treatment = _ARGUMENTS.get(str(key), _through("training", str(key)))
        if str(key).startswith(_NO_PART_OF_IT):
            treatment = _TELLING
        if (answer := treatment(chain, each, f"{place}.{key}")) is not None:
            chain.ledger.say(f"{place}.{key}", answer)
    return kept("each as its own line says") if value else OFF


def _steps(chain: Chain, value: Any, place: str) -> Answer:
    count = -1 if value is None else whole(value, place)
    return kept("as many as the epochs have") if count < 1 else _kept(_sets("max_steps")(chain, count, place))


def _saving(chain: Chain, value: Any, place: str) -> Answer:
    if isinstance(value, int) and value > 0:
        return _kept(_sets("save_every")(chain, value, place))
    return changed("checkpoints every 50 steps, from which a stopped run goes on")


def _best(chain: Chain, value: Any, place: str) -> Answer:
    if is_off(value):
        return OFF
    return changed("the last weights count", "the keys evaluated and patience of the training keep the best ones")


_NO_PART_OF_IT = ("logging_", "log_", "hub_", "ddp_", "fsdp", "deepspeed", "dataloader_", "eval_", "push_to_hub")
"""How arguments begin that say what is told, where it is kept, and how work is divided among devices."""
_TELLING = says(left_out("it changes nothing in what is trained"))
_LOADING = says(left_out("trained in float32 on a processor, and in the checkpoint's own type on a GPU"))
_ARGUMENTS: Mapping[str, Treatment] = {
    "learning_rate": _sets_number("learning_rate"),
    "per_device_train_batch_size": _sets("batch_size"),
    "max_steps": _steps,
    "num_train_epochs": _sets_number("epochs"),
    "seed": _sets("seed"),
    "data_seed": says(changed("the one seed is of the order of rows too")),
    "save_steps": _saving,
    "warmup_ratio": _through("training", "warmup_steps"),  # transformers now has a share of the steps there too
    "group_by_length": says(left_out("batches are made in the order that the seed gives")),
    "optim": lambda chain, value, place: (
        changed("adamw_torch: pages of an optimizer's memory are bitsandbytes' own")
        if str(value).startswith("paged_")
        else _through("training", "optim")(chain, value, place)
    ),
    **dict.fromkeys(("fp16", "bf16", "fp16_full_eval", "bf16_full_eval", "tf32"), _LOADING),
    **dict.fromkeys(("load_best_model_at_end", "metric_for_best_model", "greater_is_better"), _best),
    **dict.fromkeys(
        (
            "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "report_to", "run_name", "disable_tqdm",
            "evaluation_strategy", "per_device_eval_batch_size", "do_train", "do_eval", "save_strategy",
            "save_total_limit", "remove_unused_columns", "local_rank", "label_names",
        ),
        _TELLING,
    ),
}  # fmt: skip
_ADAPTER: Mapping[str, Treatment] = {
    "r": _sets("rank"),
    "alpha": _sets_number("alpha"),
    "lora_r": _sets("rank"),
    "lora_alpha": _sets_number("alpha"),
    "target_modules": _targets,
    "modules_to_save": _through("peft", "modules_to_save"),
    **dict.fromkeys(("torch_dtype", "device_map", "allow_tf32", "ephemeral_gpu_offload"), _LOADING),
    "train_data_config": _data,
    "eval_data_config": _evaluated_on,
    "eval_dataset_size": lambda chain, value, place: (
        _kept(_sets("evaluated")(chain, value, place))
        if isinstance(value, float) and 0 < value < 1
        else OFF
        if not value
        else changed("no rows are held out", "the key evaluated of the training holds out a share of them")
    ),
    "training_args": _arguments,
    "use_ort_trainer": says(changed("transformers' own Trainer")),
    "ortmodule_onnx_opset_version": says(left_out("it is of onnxruntime's trainer")),
}
LORA: Mapping[str, Treatment] = {**_ADAPTER, "lora_dropout": _sets_number("dropout")}
_QUANTIZED = says(changed("levels of 4 bits in blocks of 64, by bitsandbytes where it and a GPU are here"))
_ORIGINAL = says(changed("the adapter is merged into the weights, and a pass that quantizes comes after"))
QLORA: Mapping[str, Treatment] = {
    **LORA,
    **dict.fromkeys(("double_quant", "quant_type"), _QUANTIZED),
    "compute_dtype": _LOADING,
    "save_quant_config": _ORIGINAL,
}
LOFTQ: Mapping[str, Treatment] = {
    **LORA,
    "loftq_iter": _sets("loftq_iterations"),
    "compute_dtype": _LOADING,
    "save_quant_config": _ORIGINAL,
}
LOHA: Mapping[str, Treatment] = {
    **_ADAPTER,
    "lora_dropout": says(left_out("it is of LoRA; rank_dropout is of this adapter")),
    "rank_dropout": _sets_number("dropout"),
    **{
        name: _through("peft", name)
        for name in (
            "module_dropout", "use_effective_conv2d", "exclude_modules", "init_weights", "layers_to_transform",
            "layers_pattern", "rank_pattern", "alpha_pattern",
        )
    },
}  # fmt: skip
LOKR: Mapping[str, Treatment] = {
    **LOHA,
    **{name: _through("peft", name) for name in ("decompose_both", "decompose_factor", "rank_dropout_scale")},
}
