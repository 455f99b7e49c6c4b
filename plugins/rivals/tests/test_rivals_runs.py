"""Models of other tools beside a package: what they compute, and how drupe benchmark shows them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_files import gguf_of
from sites import program_here

from drupe.api import (
    CheckFailed,
    Model,
    ModelError,
    Progress,
    Ref,
    Runtime,
    RuntimeMissing,
    Session,
    Target,
    registry,
    resolve,
)
from drupe_eval_speed.locating import located
from drupe_eval_speed.measuring import measure, subject_of
from drupe_eval_speed.settings import SpeedConfig

PROMPTS = np.random.default_rng(1).integers(2, 500, (2, 12))
SMALL = ("--prompt-lengths", "16", "--batch-sizes", "1,2", "--new-tokens", "4", "--repeats", "2")


def continued(model: Path, prompts: Any = PROMPTS, new_tokens: int = 6, **settings: Any) -> list[list[int]]:
    """The tokens with which each row goes on, as the runtime that is found for the model says."""
    here = located(str(model), "cpu", registry())
    with here.runtime.open(here.model, here.target, **settings) as session:
        steps = [each.tolist() for each in session.continue_tokens(prompts, new_tokens)]
        again = [each.tolist() for each in session.continue_tokens(prompts, new_tokens)]
    assert steps == again, "a run depends on the one before"
    return [list(row) for row in zip(*steps, strict=True)]


def greedy(checkpoint: Path, new_tokens: int = 6) -> list[list[int]]:
    """What transformers' generate() writes."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    tokens = torch.from_numpy(PROMPTS)
    with torch.inference_mode():
        for _ in range(new_tokens):
            tokens = torch.cat([tokens, model(tokens).logits[:, -1].argmax(-1, keepdim=True)], 1)
    return [row[PROMPTS.shape[1] :] for row in tokens.tolist()]


def test_a_checkpoint_goes_on_in_transformers_as_its_whole_texts_do(checkpoint: Path) -> None:
    assert continued(checkpoint) == greedy(checkpoint)
    assert continued(checkpoint, PROMPTS[1:], threads=1) == greedy(checkpoint)[1:]


def test_a_gguf_file_goes_on_in_llama_cpp_as_its_checkpoint_does(checkpoint: Path, gguf_file: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    assert continued(gguf_file, threads=1) == greedy(checkpoint)
    assert continued(gguf_file, PROMPTS[:1], max_length=18) == greedy(checkpoint)[:1]


def test_a_file_that_llama_cpp_refuses_is_one_error_with_its_reason(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    broken = gguf_of(checkpoint, "F32")
    del broken.tensors["blk.1.ffn_up.weight"]
    done = program_here("benchmark", broken.write(tmp_path / "broken.gguf"))
    assert done.returncode == CheckFailed.exit_status, done.stderr
    assert "llama.cpp cannot open the file" in done.stderr and "blk.1.ffn_up.weight" in done.stderr
    assert done.stderr.count("error:") == 1


def test_a_model_of_openvino_goes_on_by_its_state(openvino_model: Path) -> None:
    import openvino

    model = openvino.Core().compile_model(openvino_model / "openvino_model.xml", "CPU")
    tokens = PROMPTS
    for _ in range(6):
        request = model.create_infer_request()  # has no state yet
        arrays = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "beam_idx": np.arange(2, dtype=np.int32)}
        tokens = np.c_[tokens, request.infer(arrays)["logits"][:, -1].argmax(-1)]
    assert continued(openvino_model) == tokens[:, PROMPTS.shape[1] :].tolist()
    assert continued(openvino_model / "openvino_model.xml") == continued(openvino_model)


def test_a_benchmark_has_a_checkpoint_beside_a_package(package: Path, checkpoint: Path) -> None:
    done = program_here("benchmark", package, checkpoint, *SMALL, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [each["runtime"] for each in told["packages"]] == ["onnxruntime-genai", "transformers"]
    for metric in ("time_to_first_token", "prefill_rate", "decode_rate", "load_time", "peak_memory", "size_on_disk"):
        rows = [each for each in told["results"] if each["metric"] == metric]
        assert rows and all(side["median"] > 0 for row in rows for side in row["packages"]), metric


def test_a_benchmark_has_all_that_is_installed_in_one_table(
    package: Path, checkpoint: Path, gguf_file: Path, openvino_model: Path
) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    done = program_here("benchmark", gguf_file, package, openvino_model, checkpoint, *SMALL)
    assert done.returncode == 0, done.stderr
    runtimes = next(line for line in done.stdout.splitlines() if line.startswith("runtime"))
    for name in ("llama-cpp-python", "onnxruntime-genai", "openvino", "transformers"):
        assert name in runtimes


def test_a_rival_has_the_threads_of_the_package_also_where_it_comes_first(
    package: Path, checkpoint: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(package, tmp_path / "package"))
    config = own / "genai_config.json"
    settings = json.loads(config.read_text())
    settings["model"]["decoder"]["session_options"]["intra_op_num_threads"] = 1
    config.write_text(json.dumps(settings))
    subjects = [subject_of(str(each), None, registry()) for each in (checkpoint, own)]
    found = measure(subjects, SpeedConfig(prompt_lengths=(8,), new_tokens=2, repeats=1), Progress())
    assert [each.threads for each in found.subjects] == [1, 1]


@pytest.mark.parametrize(
    ("kind", "absent", "cure"),
    [
        ("checkpoint", "transformers", "pip install torch transformers"),
        ("checkpoint", "torch", "pip install torch transformers"),
        ("gguf_file", "llama-cpp-python", "pip install llama-cpp-python"),
        ("openvino", "openvino", "pip install openvino"),
    ],
)
def test_what_is_missing_is_said_with_the_line_that_brings_it(
    kind: str, absent: str, cure: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import drupe_rivals.wheels as wheels

    present = wheels.installed_version
    monkeypatch.setattr(wheels, "installed_version", lambda names: None if absent in names else present(names))
    with pytest.raises(RuntimeMissing, match=f"{absent} is not installed") as raised:
        located(str(stateful(tmp_path) if kind == "openvino" else request.getfixturevalue(kind)), "cpu", registry())
    assert raised.value.cure == cure


def stateful(folder: Path) -> Path:
    """Files that look like a stateful model of OpenVINO."""
    (folder / "openvino_model.xml").write_text('<net><layer type="ReadValue"/></net>')
    (folder / "openvino_model.bin").write_bytes(b"")
    (folder / "config.json").write_text("{}")
    return folder


def test_a_model_without_state_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (stateful(tmp_path) / "openvino_model.xml").write_text("<net></net>")
    with pytest.raises(ModelError, match="this one keeps none"):
        located(str(tmp_path), "cpu", registry())


def test_a_checkpoint_with_a_model_of_openvino_beside_it_is_a_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    for file in checkpoint.iterdir():
        (tmp_path / file.name).symlink_to(file)
    for name in ("openvino_model.xml", "openvino_model.bin"):
        (tmp_path / name).write_text('type="ReadValue"')
    kinds = [resolve(str(each), {}, registry()).kind for each in (tmp_path, tmp_path / "openvino_model.xml")]
    assert kinds == ["hf", "openvino"]


def test_a_model_that_writes_no_text_is_not_measured_in_transformers(checkpoint: Path, tmp_path: Path) -> None:
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["Qwen2Model"]}))
    done = program_here("benchmark", tmp_path)
    assert done.returncode == ModelError.exit_status and "of the task feature-extraction" in done.stderr
    assert done.stderr.count("error:") == 1


def test_pickled_weights_are_not_read(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copy(checkpoint / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="in safetensors files, and there are none"):
        located(str(tmp_path), "cpu", registry())


def test_a_provider_that_is_not_here_runs_no_rival(checkpoint: Path) -> None:
    done = program_here("benchmark", checkpoint, "--provider", "dml")
    assert done.returncode == RuntimeMissing.exit_status and "no device for 'dml' is here" in done.stderr


class Slow(Runtime):
    """A third party's runtime for checkpoints."""

    name = "slow"
    distributions = ("pytest",)

    def refusal(self, model: Model, target: Target) -> str | None:
        return None if model.kind == "hf" else "slow runs checkpoints"

    def open(self, model: Model, target: Target, *, max_length: int | None = None, threads: int = 0) -> Session:
        raise NotImplementedError


def test_a_third_partys_runtime_takes_part_by_being_registered(checkpoint: Path, monkeypatch: Any) -> None:
    found = registry()
    plugin = next(each for each in found.plugins if each.name == "rivals")
    monkeypatch.setattr(found.runtimes, "entries", dict(found.runtimes.entries))
    found.runtimes.add(Ref("slow", f"{__name__}:Slow", "runs checkpoints slowly"), plugin)
    monkeypatch.setattr("drupe_rivals.wheels.installed_version", lambda names: None)
    assert located(str(checkpoint), "cpu", found).runtime.name == "slow"


def test_a_reference_that_no_file_can_have_is_left_to_others() -> None:
    from drupe_rivals.openvino_kind import resolve

    assert resolve("x" * 5000 + ".xml") is None and resolve("x" * 5000) is None
