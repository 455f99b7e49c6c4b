"""The tools of the benchmarks: processes are measured with their children, and generated checkpoints are valid."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"
MEBIBYTE = 1 << 20
without_accounting = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not account for ended processes")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """The module bench/measure.py, with its cache elsewhere."""
    monkeypatch.syspath_prepend(str(BENCH))
    measure = importlib.import_module("measure")
    monkeypatch.setattr(measure, "CACHE", tmp_path)
    yield measure
    for name in (
        "measure",
        "checkpoints",
        "convert",
        "frontier",
        "rungs",
    ):  # the scripts have plain names that other modules may have too
        sys.modules.pop(name, None)


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


@without_accounting
def test_peak_memory_is_that_of_the_largest_process_including_children(tmp_path: Path) -> None:
    # Started from a small process: a child's peak is at least its parent's, and pytest may hold more than the child.
    program = f"""
import subprocess, sys
from pathlib import Path
sys.path.insert(0, {str(BENCH)!r})
import measure
measure.CACHE = Path({str(tmp_path)!r})
child = "bytearray({300 * MEBIBYTE})"
parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {{child!r}}], check=True)"
print(*(measure.measure([sys.executable, "-c", each]).peak_bytes for each in ("pass", parent)))
"""
    ran = subprocess.run(python(program), capture_output=True, text=True, check=True)
    plain, parent = map(int, ran.stdout.split())
    assert plain < 50 * MEBIBYTE
    assert 300 * MEBIBYTE < parent < 400 * MEBIBYTE


@without_accounting
def test_cpu_time_does_not_count_waiting(bench: ModuleType) -> None:
    waiting = bench.measure(python("import time; time.sleep(1)"))
    assert waiting.wall_s > 1
    assert waiting.cpu_s < waiting.wall_s / 2


def test_a_failure_shows_the_last_output_of_the_process(bench: ModuleType) -> None:
    with pytest.raises(bench.Failed, match=r"exit status 3(.|\n)*out of luck"):
        bench.measure(python("print('out of luck'); raise SystemExit(3)"))


def test_tools_run_in_turn(bench: ModuleType) -> None:
    order = []

    def tool(name: str) -> object:
        order.append(name)
        return bench.Measurement(1.0, None, None)

    bench.alternate({"one": lambda: tool("one"), "two": lambda: tool("two")}, 2)
    assert order == ["one", "two", "one", "two"]


def small(checkpoints: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shape: str, **sizes: Any) -> Any:
    """The configuration of a shape with two layers and small sizes."""
    pytest.importorskip("transformers")
    content = json.loads((BENCH / "shapes" / f"{shape}.json").read_text("utf-8"))
    content |= {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    content |= {"vocab_size": checkpoints.TOKENS, **sizes}
    (tmp_path / "shape.json").write_text(json.dumps(content))
    monkeypatch.setitem(checkpoints.SHAPES, shape, tmp_path / "shape.json")
    return checkpoints.configuration(shape, 2)


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ("llama-3.2-1b", {"head_dim": 32}),
        ("qwen2.5-0.5b", {"head_dim": 16}),
        ("qwen3-8b", {"head_dim": 32}),
        ("qwen3-30b-a3b", {"head_dim": 32, "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}),
        ("lfm2-350m", {"full_attn_idxs": [1]}),
    ],
)
def test_transformers_can_read_the_checkpoints(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str, sizes: dict[str, Any]
) -> None:
    transformers = pytest.importorskip("transformers")
    checkpoints = importlib.import_module("checkpoints")
    checkpoints.write_checkpoint(small(checkpoints, monkeypatch, tmp_path, shape, **sizes), tmp_path / "tiny")
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "tiny", output_loading_info=True)
    assert not any(loading.values()), loading
    assert model.config.num_key_value_heads == 2
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "tiny")
    assert tokenizer.decode(tokenizer("def parse(text):")["input_ids"]) == "def parse(text):"


def test_a_checkpoint_in_several_shards_has_an_index(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = importlib.import_module("drupe_onnx.safetensors")
    checkpoints = importlib.import_module("checkpoints")
    monkeypatch.setattr(checkpoints, "SHARD_BYTES", 40_000)
    tensors = checkpoints.tensors(small(checkpoints, monkeypatch, tmp_path, "qwen3-8b", head_dim=16, vocab_size=256))
    for sparse in (False, True):
        folder = tmp_path / f"sparse {sparse}"
        folder.mkdir()
        checkpoints.write_weights(tensors, folder, sparse)
        assert len(list(folder.glob("*.safetensors"))) > 2
        held = onnx.tensors_of_folder(folder)
        assert held.keys() == {tensor.name for tensor in tensors}


def test_experts_of_gpt_oss_are_codes_and_scales(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = importlib.import_module("checkpoints")
    sizes = {"num_local_experts": 2, "head_dim": 16, "intermediate_size": 64}
    tensors = {
        each.name: each
        for each in checkpoints.tensors(small(checkpoints, monkeypatch, tmp_path, "gpt-oss-20b", **sizes))
    }
    blocks = tensors["model.layers.1.mlp.experts.down_proj_blocks"]
    assert (blocks.shape, blocks.dtype, blocks.nbytes) == ((2, 64, 2, 16), "U8", 4096)


@pytest.mark.parametrize("name", sorted(path.name for path in (BENCH / "models").iterdir() if path.is_dir()))
def test_the_models_for_measuring_quality_are_small_and_trained(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    drupe, demo = importlib.import_module("drupe"), importlib.import_module("drupe_demo")
    checkpoint = BENCH / "models" / name
    assert sum(path.stat().st_size for path in checkpoint.iterdir()) < 5_000_000
    drupe.optimize(checkpoint, tmp_path / "package", precision="fp32", verify=False)
    metrics = drupe.evaluate(tmp_path / "package", evaluation_data=demo.HELDOUT, tokens=512, length=512)
    vocabulary = json.loads((checkpoint / "config.json").read_text("utf-8"))["vocab_size"]
    perplexity = next(metric.value for metric in metrics if metric.name == "perplexity")
    assert perplexity < vocabulary / 25  # with random weights the perplexity would be about the number of tokens


def test_a_point_is_outside_a_frontier_without_a_point_as_small_and_as_close(bench: ModuleType) -> None:
    frontier = importlib.import_module("frontier")

    def point(name: str, nbytes: int, kl: float) -> object:
        return frontier.Point(name, "tool", nbytes, kl, 1.0, 1.0, 1.0, 1.0)

    small, close, beaten = point("small", 80, 0.4), point("close", 120, 0.1), point("beaten", 130, 0.2)
    ours = [beaten, close, small]
    assert frontier.frontier(ours) == [small, close]
    between, smaller, closer = point("between", 119, 0.39), point("smaller", 79, 0.9), point("closer", 900, 0.09)
    assert frontier.outside([small, point("same", 120, 0.1), between, smaller, closer], ours) == [
        between,
        smaller,
        closer,
    ]


@pytest.mark.parametrize("options", [("--quality", "unheard-of"), ("--no-such-option", "1")])
def test_a_rung_that_drupe_does_not_offer_is_distinguished_from_a_failure(
    bench: ModuleType, tmp_path: Path, options: tuple[str, ...]
) -> None:
    demo, rungs = importlib.import_module("drupe_demo"), importlib.import_module("rungs")
    with pytest.raises(rungs.NotOffered, match=r"unheard-of|no-such-option"):
        rungs.Rung("new", "drupe", options).make(Path(demo.MODEL), tmp_path / "package")
    with pytest.raises(bench.Failed):
        rungs.Rung("broken", "drupe").make(tmp_path / "no-checkpoint", tmp_path / "package")
