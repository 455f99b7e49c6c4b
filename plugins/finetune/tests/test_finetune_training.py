"""Training: the same as a plain script with peft, stopped and gone on, and what comes out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters import make_adapter
from tiny import make_checkpoint

import drupe
from drupe.api import Cancelled, Context, ModelError, OutputError, Step, UsageError

peft = pytest.importorskip("peft")

from drupe_commands.previewing import Preview, preview_of  # noqa: E402
from drupe_finetune.command import _sum_up, run  # noqa: E402
from drupe_finetune.settings import FinetuneConfig  # noqa: E402
from drupe_finetune.training import Trained  # noqa: E402

TEMPLATE = "### Question: {question}\\n### Answer: {answer}"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("finetune") / "base")


@pytest.fixture(scope="module")
def data(base: Path) -> Path:
    path = base.parent / "data.jsonl"
    rows = [{"question": f"go {at}", "answer": "for text in " * (1 + at % 3)} for at in range(24)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def config(data: Path, **settings: Any) -> FinetuneConfig:
    given = {"data": str(data), "template": TEMPLATE, "max_steps": 6, "batch_size": 4, "save_every": 2}
    if settings.get("method") != "full":
        given["rank"] = 4
    return FinetuneConfig(**{**given, **settings})


def tensors(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    found: dict[str, np.ndarray] = load_file(next(folder.glob("*.safetensors")))
    return found


def assert_same(one: Path, other: Path) -> None:
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_the_losses_are_those_of_a_plain_script_with_peft(base: Path, data: Path, tmp_path: Path) -> None:
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    note = run(str(base), config(data, seed=3, training={"weight_decay": 0.1}), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.eos_token
    texts = [
        f"### Question: {row['question']}\n### Answer: {row['answer']}<|end|>"
        for row in map(json.loads, data.read_text().splitlines())
    ]
    set_seed(3)
    model = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear"),
    )
    arguments = TrainingArguments(
        str(tmp_path / "plain"), max_steps=6, per_device_train_batch_size=4, learning_rate=2e-4, weight_decay=0.1,
        seed=3, logging_steps=1, save_strategy="no", report_to=[],
    )  # fmt: skip

    def collate(rows: Any) -> Any:
        batch = DataCollatorForLanguageModeling(tokenizer, mlm=False)(rows)
        batch["labels"] = torch.where(batch["attention_mask"] == 1, batch["input_ids"], -100)
        return batch

    trainer = Trainer(
        model=model, args=arguments, train_dataset=[tokenizer(each) for each in texts], data_collator=collate
    )
    trainer.train()
    plain = [each["loss"] for each in trainer.state.log_history if "loss" in each]
    np.testing.assert_allclose(list(note["losses"].values()), plain, rtol=1e-5)
    assert note["rows"] == 24 and note["left_out"] == []


KILLED = """
import os, signal, sys
from pathlib import Path
from drupe_finetune import training
from drupe_finetune.checkpoints import mark_complete
from drupe_finetune.command import run
from drupe_finetune.settings import FinetuneConfig

def die(folder):
    if folder.name == "checkpoint-6":
        if sys.argv[4] == "6":
            mark_complete(folder)
        os.kill(os.getpid(), signal.SIGKILL)  # the checkpoint is written, and else not yet marked as complete
    mark_complete(folder)

training.mark_complete = die
run(sys.argv[1], FinetuneConfig.model_validate_json(sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.mark.parametrize(
    ("given", "complete"),
    [
        ({"dropout": 0.1, "max_steps": 8}, 4),
        ({"evaluated": 0.25, "patience": 2, "learning_rate": 16.0, "max_steps": 20}, 6),  # worse from there on
    ],
    ids=["dropout", "patience"],
)
def test_a_killed_run_goes_on_to_the_same_result(
    given: dict[str, Any], complete: int, base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(data, **given)
    whole = run(str(base), settings, tmp_path / "whole")
    typed = settings.model_dump_json(exclude={"data_fingerprint"})
    command = [sys.executable, "-c", KILLED, base, typed, tmp_path / "out", str(complete)]
    killed = subprocess.run(command, check=False)
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "out").exists()
    resumed = run(str(base), settings, tmp_path / "out")
    assert (resumed["losses"], resumed["evaluated"]) == (whole["losses"], whole["evaluated"])
    assert f"going on from checkpoint-{complete}" in capsys.readouterr().err
    assert_same(tmp_path / "whole", tmp_path / "out")
    assert not (tmp_path / "out.checkpoints").exists()


def test_a_stopped_run_keeps_its_last_checkpoint(base: Path, data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    steps = iter(range(100))

    def stop(self: Context) -> None:
        if next(steps) == 4:
            raise KeyboardInterrupt

    run(str(base), config(data), tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(Context, "stop_if_cancelled", stop)
        with pytest.raises(Cancelled, match="checkpoint-4 is kept in"):
            run(str(base), config(data), tmp_path / "out")
    half = tmp_path / "out.checkpoints" / "checkpoint-5"
    half.mkdir()  # one that was not written to its end
    with pytest.raises(UsageError, match="these differ: rank"):
        run(str(base), config(data, rank=2), tmp_path / "out")
    settings = half.parent / "settings.json"
    written = settings.read_bytes()
    settings.write_bytes(written[:40])
    with pytest.raises(ModelError, match=r"settings\.json is not JSON"):
        run(str(base), config(data), tmp_path / "out")
    settings.write_bytes(written)
    run(str(base), config(data), tmp_path / "out")
    assert_same(tmp_path / "whole", tmp_path / "out")


@pytest.mark.parametrize("method", ["rslora", "dora", "loha", "lokr"])
def test_each_method_gives_an_adapter_that_peft_and_optimize_take(
    method: str, base: Path, data: Path, tmp_path: Path
) -> None:
    run(str(base), config(data, method=method, max_steps=2, learning_rate=0.05), tmp_path / "out")
    model = drupe.api.resolve(str(base), {"adapter": tmp_path / "out"}, drupe.api.registry())
    assert len(model.payload.tensors()) == len(drupe.api.resolve(str(base), {}, drupe.api.registry()).payload.tensors())
    stated = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert stated["base_model_name_or_path"] == str(base)


def test_a_merged_checkpoint_is_the_base_with_the_adapter(base: Path, data: Path, tmp_path: Path) -> None:
    run(str(base), config(data, learning_rate=0.05), tmp_path / "adapter")
    run(str(base), config(data, learning_rate=0.05), tmp_path / "whole", merge=True)
    model = drupe.api.resolve(str(base), {"adapter": tmp_path / "adapter"}, drupe.api.registry())
    held = tensors(tmp_path / "whole")
    from drupe_onnx import Files

    with Files() as files:
        for name, tensor in model.payload.tensors().items():
            np.testing.assert_array_equal(held[name], tensor.value(files), err_msg=name)
    assert (tmp_path / "whole" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_full_training_gives_a_checkpoint(base: Path, data: Path, tmp_path: Path) -> None:
    run(str(base), config(data, method="full", max_steps=2, learning_rate=0.01), tmp_path / "out")
    before, after = tensors(base), tensors(tmp_path / "out")
    assert before.keys() == after.keys() and any(not np.array_equal(before[name], after[name]) for name in before)
    made = drupe.optimize(tmp_path / "out", tmp_path / "package", provider="cpu")
    assert made.check.metrics


def test_a_plan_with_training_is_compared_with_what_was_trained(base: Path, data: Path, tmp_path: Path) -> None:
    trained = config(data, learning_rate=0.05).model_dump(exclude={"data_fingerprint"})
    passes = [Step("finetune", trained), *map(Step, ("build-decoder", "quantize-weights", "package-genai"))]
    made = drupe.optimize(base, tmp_path / "out", passes=passes, provider="cpu", precision="int4")
    assert made.check.metrics["kl_divergence"] < 0.2
    run(str(base), config(data, learning_rate=0.05), tmp_path / "whole", merge=True)
    same, base_itself = (
        {each.name: each.value for each in drupe.evaluate(tmp_path / "out", other)}["kl_divergence"]
        for other in (tmp_path / "whole", base)
    )
    assert same == pytest.approx(made.check.metrics["kl_divergence"], rel=1e-3)
    assert base_itself == pytest.approx(same, rel=1e-3)  # the source's name stands for what the plan made of it


def test_the_option_train_on_puts_the_training_in_front_of_the_recipe(base: Path, data: Path) -> None:
    settings = {"template": TEMPLATE, "max_steps": 2}
    plan = drupe.plan(base, provider="cpu", train_on=str(data), settings={"finetune": settings})
    assert [each.name for each in plan.passes][:2] == ["finetune", "build-decoder"]
    assert plan.passes[0].config.items() >= {"data": str(data), **settings}.items()


def test_what_adapters_beside_it_belong_to_is_not_trained(base: Path, data: Path, tmp_path: Path) -> None:
    make_adapter(tmp_path / "fr", base, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(ModelError, match=r"adapters beside the checkpoint \(fr\)"):
        drupe.optimize(base, tmp_path / "out", provider="cpu", train_on=str(data), adapters=[tmp_path / "fr"])


def test_an_adapter_that_a_plan_trains_stays_beside_the_base_and_is_compared_with_itself(
    base: Path, data: Path, tmp_path: Path
) -> None:
    settings = {"template": TEMPLATE, "max_steps": 6, "batch_size": 4, "rank": 4, "learning_rate": 0.05}
    make_adapter(tmp_path / "fr", base, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    options: dict[str, Any] = {"train_on": str(data), "keep_adapter": "own", "settings": {"train-adapter": settings}}
    made = drupe.optimize(base, tmp_path / "out", provider="cpu", adapters=[tmp_path / "fr"], **options)
    metrics = made.check.metrics
    assert metrics["kl_divergence"] < 0.2 and metrics["kl_divergence with adapter own"] < 0.2
    assert {path.stem for path in (tmp_path / "out/adapters").iterdir()} == {"fr", "own"}
    with drupe.open(tmp_path / "out") as session:
        plain = session.generate("go 1", max_new_tokens=8)
        session.use_adapter("own")
        assert session.generate("go 1", max_new_tokens=8) != plain
    again = drupe.optimize(base, tmp_path / "again", provider="cpu", adapters=[tmp_path / "fr"], **options)
    assert again.check.metrics == metrics
    for name in ("own", "fr"):
        file = f"adapters/{name}.onnx_adapter"
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


@pytest.mark.parametrize(
    ("options", "settings", "said"),
    [
        ({}, {}, "--set finetune.column=question, or --set finetune.template='... {question} ...'"),
        ({}, {"column": "other"}, "--set finetune.column"),
        ({}, {"method": "full", "rank": 4}, "--set finetune.rank has no effect: --set finetune.method=full"),
        ({"keep_adapter": "own"}, {"column": "other"}, "--set train-adapter.column"),
    ],
)
def test_errors_of_a_training_in_a_plan_name_its_keys_and_not_flags(
    base: Path, data: Path, tmp_path: Path, options: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    name = "train-adapter" if options else "finetune"
    with pytest.raises(UsageError) as caught:
        drupe.optimize(base, tmp_path / "out", provider="cpu", train_on=str(data), settings={name: settings}, **options)
    assert said in f"{caught.value.where} {caught.value.what} {caught.value.cure}"


def test_what_an_adapter_beside_the_base_cannot_be_is_said_before_the_training(base: Path, data: Path) -> None:
    def plan(name: str = "own", **settings: Any) -> Preview:
        given = {"template": TEMPLATE, **settings}
        made = drupe.plan(
            base, provider="cpu", train_on=str(data), keep_adapter=name, settings={"train-adapter": given}
        )
        return preview_of(made, drupe.api.resolve(str(base), {}, drupe.api.registry()))

    assert plan().plan.passes[0].name == "train-adapter"
    for name, settings, said in (
        ("a/b", {}, "cannot be an adapter's name"),
        ("own", {"init": "loftq"}, "weights of its own"),
        ("own", {"peft": {"modules_to_save": ["lm_head"]}}, "modules_to_save"),
        ("own", {"method": "dora"}, "'lora', 'qlora' or 'rslora'"),
    ):
        with pytest.raises(UsageError, match=said):
            plan(name, **settings)


@pytest.mark.parametrize(
    ("method", "keys"),
    [
        ("lora", {"rank_pattern": {"q_proj": 2}, "modules_to_save": ["lm_head"]}),
        ("lokr", {"decompose_both": True, "exclude_modules": ["q_proj"]}),
    ],
)
def test_other_keys_of_pefts_configuration_are_taken_and_merged(
    base: Path, data: Path, tmp_path: Path, method: str, keys: dict[str, Any]
) -> None:
    training = {"gradient_checkpointing": True}
    settings = config(data, method=method, peft=keys, training=training, learning_rate=0.02, max_steps=2)
    run(str(base), settings, tmp_path / "adapter")
    stated = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert {key: stated[key] for key in keys} == keys
    run(str(base), settings, tmp_path / "whole", merge=True)
    merged, plain = tensors(tmp_path / "whole"), tensors(base)
    changed = {name for name, value in merged.items() if name in plain and not np.array_equal(value, plain[name])}
    assert changed and any("q_proj" in name for name in changed) == (method == "lora")


def test_keys_that_peft_does_not_have_are_refused(base: Path, data: Path, tmp_path: Path) -> None:
    for keys, said in (({"modules_to_sav": []}, "did you mean 'modules_to_save'"), ({"r": 2}, "set by drupe")):
        with pytest.raises(UsageError, match=said):
            run(str(base), config(data, peft=keys), tmp_path / "out")


def test_rows_are_held_out_and_training_ends_early(base: Path, data: Path, tmp_path: Path) -> None:
    settings = config(data, evaluated=0.25, patience=1, max_steps=40, learning_rate=1.0)
    note = run(str(base), settings, tmp_path / "out")
    assert note["evaluated"] and max(map(int, note["losses"])) < 40


def test_what_cannot_be_trained_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").touch()
    with pytest.raises(UsageError, match="no module 'qproj'; did you mean 'q_proj'") as caught:
        run(str(base), config(data, targets=("k_proj", "qproj")), out)
    assert "v_proj" in str(caught.value.cure)
    with pytest.raises(UsageError, match=r"training\.learning_rate cannot be 'abc'"):
        run(str(base), config(data, training={"learning_rate": "abc"}), out)
    with pytest.raises(UsageError, match="no 'learning_rates'; did you mean 'learning_rate'"):
        run(str(base), config(data, training={"learning_rates": 1}), out)
    with pytest.raises(UsageError, match="output_dir is set by drupe"):
        run(str(base), config(data, training={"output_dir": "x"}), out)
    with pytest.raises(UsageError, match="--evaluated"):
        run(str(base), config(data, patience=2), out)
    with pytest.raises(UsageError, match="no column 'text'") as unknown:
        run(str(base), config(data, template="{text}"), out)
    assert "question, answer" in str(unknown.value.cure)
    with pytest.raises(OutputError, match="not made by drupe finetune"):
        run(str(base), config(data), out, force=True)
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


def test_a_checkpoint_whose_weights_are_not_whole_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    cut = tmp_path / "cut"
    shutil.copytree(base, cut)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        run(str(cut), config(data), tmp_path / "out")
    held = tensors(base)
    del held["model.layers.1.mlp.up_proj.weight"]
    save_file(held, weights, {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 tensor of the model: model\.layers\.1\.mlp\.up_proj\.weight"):
        run(str(cut), config(data), tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["cut"]


@pytest.mark.parametrize(
    ("architecture", "task"), [("BertForMaskedLM", "fill-mask"), ("Qwen3Model", "feature-extraction")]
)
def test_a_model_that_writes_no_text_is_refused(
    base: Path, data: Path, tmp_path: Path, architecture: str, task: str
) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    settings = json.loads((other / "config.json").read_bytes())
    (other / "config.json").write_text(json.dumps({**settings, "architectures": [architecture]}))
    with pytest.raises(ModelError, match=f"the model is for {task}"):
        run(str(other), config(data), tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_merging_and_full_training_are_not_asked_for_at_once(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--merge has no effect"):
        run(str(base), FinetuneConfig(data=str(data), template=TEMPLATE, method="full"), tmp_path / "out", merge=True)


def test_the_note_names_the_model_and_the_rate_that_was_used(base: Path, data: Path, tmp_path: Path) -> None:
    note = run(str(base), config(data, max_steps=2), tmp_path / "out", merge=True)
    assert note == json.loads((tmp_path / "out" / "finetune.json").read_bytes())
    assert note["model"] == str(base)
    assert (note["settings"]["learning_rate"], note["settings"]["alpha"]) == (2e-4, 8)


def test_the_rate_may_be_stated_once_among_the_arguments_of_transformers(
    base: Path, data: Path, tmp_path: Path
) -> None:
    typed = {"learning_rate": 1e-3}
    assert config(data, training=typed).chosen["learning_rate"] == 1e-3
    with pytest.raises(UsageError, match=r"--training\.learning_rate says it as well"):
        run(str(base), config(data, training=typed, learning_rate=1e-4), tmp_path / "out")


def test_an_epoch_is_all_rows_whatever_batches_are_accumulated(data: Path) -> None:
    settings = FinetuneConfig(data=str(data), batch_size=4, epochs=2, training={"gradient_accumulation_steps": 3})
    assert settings.steps(25) == 5
    assert FinetuneConfig(data=str(data), batch_size=4).steps(25) == 7


WATCHED = """
import os, sys
from pathlib import Path

class Watching:
    def find_spec(self, name, *rest):
        if name == "torch" and "torch" not in sys.modules:
            print(os.environ.get("OMP_WAIT_POLICY"))

sys.meta_path.insert(0, Watching())
from drupe_finetune.command import run
from drupe_finetune.settings import FinetuneConfig

run(sys.argv[1], FinetuneConfig.model_validate_json(sys.argv[2]), Path(sys.argv[3]))
"""


def test_the_threads_of_torch_wait_asleep(base: Path, data: Path, tmp_path: Path) -> None:
    """Those that spin take ten times as long where others use the processor; that is decided when torch is loaded."""
    settings = config(data, template="{nothing}").model_dump_json(exclude={"data_fingerprint"})
    command = [sys.executable, "-c", WATCHED, str(base), settings, str(tmp_path / "out")]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.split() == ["PASSIVE"], done.stderr


def test_a_loss_that_does_not_fall_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = FinetuneConfig(data="rows", learning_rate=0.5)
    for last, told in ((8.3, True), (1.9, False)):
        losses = {1: 7.4, 2: 7.2, 3: 8.4, 4: 8.3, 5: 8.3, 6: 8.3, 7: last, 8: last}
        _sum_up(Trained(None, None, None, 8, losses), settings, tmp_path, "base", whole=False)  # type: ignore[arg-type]
        assert ("the loss did not fall; --learning-rate 0.05" in capsys.readouterr().err) is told
    assert not Trained(None, None, None, 3, {1: 6.2, 2: 6.3, 3: 6.4}).rose  # type: ignore[arg-type]


def test_olives_command_line_runs_as_it_stands(base: Path, data: Path, tmp_path: Path) -> None:
    line = ["--model_name_or_path", base, "--data_name", data, "--text_template", TEMPLATE, "--max_steps", 2]
    line += ["--output_path", tmp_path / "out", "--training.learning_rate", "1e-3", "--json"]
    command = [sys.executable, "-m", "drupe", "finetune", *map(str, line)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["settings"]["training"] == {"learning_rate": 1e-3}
    assert "step 2 of 2: loss" in done.stderr and "Warning" not in done.stderr
