"""Chunks, bounds, bad input, and the command."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import drupe
from drupe.api import Context, Metric, Model, ModelError, Progress, UsageError
from drupe_eval_quality.kept_logits import found_logits, keeping
from drupe_eval_quality.quality import Quality, QualityConfig
from drupe_eval_quality.text_windows import Chunk, Window
from drupe_files import cache_entries, sharing
from drupe_layerwise import LayerByLayer

pytest.importorskip("onnxruntime")

Package = Callable[[Path, str], Path]


class Counted(Progress):
    def __init__(self) -> None:
        self.steps: list[int] = []

    def start(self, label: str, total: int, unit: str = "bytes") -> None:
        self.total = total

    def advance(self, amount: int) -> None:
        self.steps.append(amount)

    def finish(self) -> None:
        pass


def with_budget(folder: Path, reference: Path, text: Path, scratch: Path, budget: int) -> tuple[Any, list[int]]:
    """Measure with this many bytes for logits. Returns the metrics and the tokens of each chunk."""
    from drupe_ep_cpu.provider import Cpu
    from drupe_onnxruntime.plain.runtime import OnnxRuntime

    target, progress = Cpu().target(), Counted()
    scratch.mkdir()
    context = Context(target, scratch, memory_budget=budget, progress=progress,
                      open=lambda model: OnnxRuntime().open(model, target))  # fmt: skip
    config = QualityConfig(evaluation_data=text, tokens=90, length=40)
    metrics = Quality().evaluate(Model("onnx", folder), Model("onnx", reference), config, context)
    assert progress.total == sum(progress.steps) == 90
    return metrics, progress.steps


def test_a_source_is_run_once_for_all_comparisons_that_share_a_folder(
    checkpoint: Path, package: Package, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = LayerByLayer.logits
    runs: list[int | None] = []

    def noted(self: LayerByLayer, positions: int | None = None, *rest: Any) -> Any:
        runs.append(positions)
        return run(self, positions, *rest)

    monkeypatch.setattr(LayerByLayer, "logits", noted)

    def metrics(precision: str) -> list[Metric]:
        settings = {"evaluation_data": text, "tokens": 90, "length": 40}
        return list(drupe.evaluate(package(checkpoint, precision), checkpoint, **settings))

    alone = [metrics("int4"), metrics("int8")]
    assert len(runs) == 2
    with sharing(tmp_path):
        assert [metrics("int4"), metrics("int8")] == alone
    assert len(runs) == 3
    kept = list(tmp_path.iterdir())
    assert sorted(each.name.partition("-")[0] for each in kept) == ["logits", "reference"]  # made once as well


class Full(io.FileIO):
    """A file on a disk that takes no more."""

    def write(self, data: Any) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")


def test_logits_are_not_kept_where_the_disk_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.ones((4, 3), np.float32)
    window = Window(range(4), range(4))
    chunks = [Chunk(window, 0, 4, rows)]
    with sharing(tmp_path):
        assert [*keeping(iter(chunks), [window], "a")] == chunks
        kept = found_logits("a")
        assert kept is not None and np.array_equal(kept, rows)
        with monkeypatch.context() as patched:
            patched.setattr(tempfile, "NamedTemporaryFile", lambda **given: Full(tmp_path / "new", "wb"))
            assert [*keeping(iter(chunks), [window], "b")] == chunks
        assert found_logits("b") is None
        assert [each.name for each in tmp_path.iterdir()] == ["logits-a.npy"]


def test_the_size_of_chunks_does_not_change_the_results(
    checkpoint_with_beginning: Path, package: Package, text: Path, tmp_path: Path
) -> None:
    folder, reference = package(checkpoint_with_beginning, "int4"), package(checkpoint_with_beginning, "fp32")
    row = 2 * 300 * 4  # bytes of the logits of both models at one position
    whole, steps = with_budget(folder, reference, text, tmp_path / "whole", 1000 * row)
    assert steps == [40, 40, 10]
    chunked, steps = with_budget(folder, reference, text, tmp_path / "chunked", 7 * row)
    assert max(steps) == 7
    single, steps = with_budget(folder, reference, text, tmp_path / "single", 0)
    assert set(steps) == {1}
    for other in (chunked, single):
        for one, another in zip(whole, other, strict=True):
            assert another.name == one.name
            assert another.value == pytest.approx(one.value, rel=1e-3, abs=1e-6)


def test_metrics_have_a_unit_and_a_direction(checkpoint: Path, package: Package, text: Path) -> None:
    folder = package(checkpoint, "int4")
    found = drupe.evaluate(folder, package(checkpoint, "fp32"), evaluation_data=text, tokens=50)
    assert [(metric.name, metric.unit, metric.better) for metric in found] == [
        ("kl_divergence", "nats/token", "lower"),
        ("top1_agreement", "of tokens", "higher"),
        ("perplexity", "", "lower"),
        ("reference_perplexity", "", "lower"),
    ]
    assert found[0].value > 1e-5


def test_without_a_text_the_shipped_text_is_used(checkpoint: Path, package: Package) -> None:
    (metric,) = drupe.evaluate(package(checkpoint, "fp32"))
    assert metric.name == "perplexity"
    assert metric.value > 1


def test_a_short_text_is_enough_unless_more_tokens_are_asked_for(
    checkpoint: Path, package: Package, tmp_path: Path
) -> None:
    made, path = package(checkpoint, "int4"), tmp_path / "text.txt"
    path.write_text("def parse(text): return [go for go in text] " * 4)
    assert drupe.evaluate(made, evaluation_data=path)[0].value > 1
    with pytest.raises(UsageError, match=r"30[01] are needed") as caught:
        drupe.evaluate(made, evaluation_data=path, tokens=300)
    assert "--tokens" in (caught.value.cure or "")


def test_max_kl_needs_a_reference(checkpoint: Path, package: Package) -> None:
    with pytest.raises(UsageError, match="needs a model to compare with"):
        drupe.evaluate(package(checkpoint, "int4"), max_kl=0.1)


@pytest.mark.parametrize(
    ("content", "config", "complaint"),
    [
        (b"too short", {}, "the text has 9 tokens, but 3[23] are needed"),
        ("für alle".encode("latin-1"), {}, "not in UTF-8"),
        (None, {}, "cannot be read"),
        (b"text", {"tokens": 0}, "'quality' refuses tokens = 0"),
        (b"text", {"tokns": 5}, "unknown key 'tokns' of the evaluator 'quality'; did you mean tokens"),
        (b"text", {"evaluator": "qualty"}, "did you mean quality"),
    ],
)
def test_invalid_input_is_an_error(
    checkpoint: Path, package: Package, tmp_path: Path, content: bytes | None, config: dict[str, Any], complaint: str
) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=complaint):
        drupe.evaluate(package(checkpoint, "fp32"), evaluation_data=path, **config)


def test_evaluating_a_checkpoint_instead_of_a_package_is_an_error(checkpoint: Path) -> None:
    with pytest.raises(ModelError, match="a model of kind 'hf', not a package"):
        drupe.evaluate(checkpoint)


def test_a_reference_with_another_vocabulary_is_refused(
    checkpoint: Path, package: Package, text: Path, tmp_path: Path
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=400, hidden_size=64, intermediate_size=64, num_hidden_layers=1,
                         num_attention_heads=2)  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "tokenizer.json").write_bytes((checkpoint / "tokenizer.json").read_bytes())
    with pytest.raises(ModelError, match=r"vocabulary of 300 .*has 400"):
        drupe.evaluate(package(checkpoint, "fp32"), tmp_path / "other", evaluation_data=text)


def test_the_command_prints_a_table_or_json(checkpoint: Path, package: Package, text: Path) -> None:
    arguments = [
        str(package(checkpoint, "int4")),
        "--against",
        str(package(checkpoint, "fp32")),
        "--evaluation-data",
        str(text),
    ]
    shown = run("evaluate", *arguments, "--tokens", "50")
    assert [line.split()[0] for line in shown.splitlines()] == ["metric", "kl", "top1", "perplexity", "reference"]
    found = json.loads(run("evaluate", *arguments, "--tokens", "50", "--json"))
    expected: tuple[Metric, ...] = drupe.evaluate(arguments[0], arguments[2], evaluation_data=text, tokens=50)
    settings = found.pop("settings")["quality"]
    assert found == {metric.name: pytest.approx(metric.value, rel=1e-3) for metric in expected}
    assert settings["tokens"] == 50
    assert settings["evaluation_fingerprint"] == hashlib.sha256(text.read_bytes()).hexdigest()


def run(*arguments: str) -> str:
    """The program's standard output."""
    command = [sys.executable, "-c", "from drupe_commands.program import main; main()", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def test_without_hard_links_the_data_is_copied(
    checkpoint: Path, package: Package, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError("Invalid cross-device link")

    folder = package(checkpoint, "int4")
    linked = drupe.evaluate(folder, evaluation_data=text, tokens=20)
    monkeypatch.setattr("os.link", refuse)
    assert drupe.evaluate(folder, evaluation_data=text, tokens=20) == linked


class Labels(Progress):
    """The steps that a user is told of."""

    def __init__(self) -> None:
        self.labels: list[str] = []

    def start(self, label: str, total: int, unit: str = "bytes") -> None:
        self.labels.append(label)


def compared(package: Path, checkpoint: Path) -> tuple[list[float], bool]:
    """The metrics, and whether the source was run."""
    progress = Labels()
    found = drupe.evaluate(package, checkpoint, progress=progress, tokens=32)
    return [metric.value for metric in found], "running the source" in progress.labels


def test_the_same_source_and_text_are_run_once(
    checkpoint: Path, package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRUPE_CACHE", str(tmp_path / "cache"))
    own = Path(shutil.copytree(checkpoint, tmp_path / "own"))
    folder = package(checkpoint, "int4")
    first, ran = compared(folder, own)
    assert ran and compared(folder, own) == (first, False)
    other = compared(package(checkpoint, "fp32"), own)  # another package, the same source
    assert not other[1] and other[0][0] < first[0] / 10

    (note,) = (tmp_path / "cache" / "activations").iterdir()
    (entry,) = cache_entries()
    assert entry.source == str(own) and not entry.damage()
    note.write_bytes(note.read_bytes()[:900])
    assert compared(folder, own) == (first, True)  # what is damaged is made again

    weights = own / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-4:] = b"\x00\x00\x00\x40"  # a float32 in the middle of nowhere
    weights.write_bytes(content)
    changed, ran = compared(folder, own)
    assert ran and changed != first
