"""A base in 4 bits: QLoRA equals a plain script on dequantized weights, and LoftQ begins with a lower loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import make_checkpoint

import drupe
from drupe.api import ModelError, RuntimeMissing, UsageError

peft = pytest.importorskip("peft")

from drupe_finetune.command import run  # noqa: E402
from drupe_finetune.settings import FinetuneConfig  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of torch spin where other work keeps the processor busy."""
    monkeypatch.setattr("drupe.api.usable_threads", lambda: 1)


SIZES = {"hidden_size": 128, "intermediate_size": 192}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("four-bits") / "base", **SIZES)


@pytest.fixture(scope="module")
def data(base: Path) -> Path:
    path = base.parent / "data.txt"
    path.write_text("\n\n".join(f"def parse_{at}(text): return [go for go in text][{at}]" for at in range(24)))
    return path


def config(data: Path, **settings: Any) -> FinetuneConfig:
    given = {"data": str(data), "rank": 8, "max_steps": 5, "batch_size": 4, "save_every": 5, "method": "qlora"}
    return FinetuneConfig(**{**given, **settings})


def losses(note: dict[str, Any]) -> list[float]:
    return [float(loss) for loss in note["losses"].values()]


def test_qlora_learns_as_a_plain_script_does_on_the_dequantized_weights(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from drupe_finetune import training
    from drupe_finetune.four_bits import PackedLinear, base_in_four_bits
    from drupe_finetune.targets import targets_of

    packed = run(str(base), config(data, seed=3), tmp_path / "packed")
    model = base_in_four_bits(base, config(data), print)
    held = {name: each for name, each in model.named_modules() if isinstance(each, PackedLinear)}
    assert len(held) == 2 * 7

    def plain(folder: Path, config: FinetuneConfig, say: Any) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        for name, each in held.items():
            loaded.get_submodule(name).weight.data.copy_(each.dequantized())
        loaded.config.use_cache = False
        return peft.get_peft_model(loaded, training._adapter(config, targets_of(loaded, config)))

    monkeypatch.setattr(training, "_prepared", plain)
    expected = run(str(base), config(data, seed=3), tmp_path / "plain")
    np.testing.assert_allclose(losses(packed), losses(expected), rtol=1e-5)


def test_no_float_matrix_is_kept_for_the_way_back(base: Path, data: Path) -> None:
    import torch

    from drupe_finetune.four_bits import PackedLinear, base_in_four_bits

    model = base_in_four_bits(base, config(data), print)
    module = next(each for each in model.modules() if isinstance(each, PackedLinear))
    saved: list[int] = []

    def note(tensor: Any) -> Any:
        saved.append(tensor.numel())
        return tensor

    x = torch.randn(3, module.in_features, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = module(x)
    assert max(saved) < module.in_features * module.out_features / 8
    out.sum().backward()
    assert torch.allclose(x.grad, module.dequantized().sum(0).expand_as(x), atol=1e-4)


def test_a_model_whose_names_transformers_changes_is_held_in_four_bits_as_well(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = make_checkpoint(tmp_path / "moe", "qwen3_moe", **SIZES)
    note = run(str(base), config(data), tmp_path / "out")
    assert note["base"] == {
        "quantizer": "drupe", "bits": 4, "block_size": 64, "symmetric": False, "init": "default",
    }  # fmt: skip
    told = capsys.readouterr().err
    assert "loaded whole, which takes up to" in told and "mlp.experts.gate_up_proj" in told


def test_loftq_begins_with_a_lower_loss_than_a_plain_adapter_on_the_same_bits(data: Path, tmp_path: Path) -> None:
    from drupe_demo import MODEL

    rows = tmp_path / "rows.txt"
    rows.write_text(Path(json.__file__).read_text(encoding="utf-8")[:12000])
    given = {"max_length": 256, "packing": True, "max_steps": 1, "rank": 32, "batch_size": 12}
    plain = run(str(MODEL), config(rows, **given), tmp_path / "plain")
    begun = run(str(MODEL), config(rows, **given, init="loftq"), tmp_path / "loftq")
    float_base = run(str(MODEL), config(rows, **given, method="lora"), tmp_path / "float")
    assert losses(float_base)[0] < losses(begun)[0] < losses(plain)[0]


def test_a_loftq_adapter_is_merged_into_its_own_base_only(base: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(str(base), config(data, init="loftq"), out)
    stated = json.loads((out / "adapter_config.json").read_bytes())
    assert stated["base_model_name_or_path"] == str(out / "base")
    with pytest.raises(ModelError, match="belongs to weights in 4 bits") as caught:
        drupe.plan(base, adapter=[out], verify=False)
    assert caught.value.cure == f"drupe optimize {out / 'base'} --adapter {out}"
    assert drupe.plan(out / "base", adapter=[out], verify=False).passes


def test_merging_a_loftq_adapter_gives_what_was_trained(base: Path, data: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    run(str(base), config(data, init="loftq"), tmp_path / "adapter")
    run(str(base), config(data, init="loftq"), tmp_path / "merged", merge=True)
    adapted = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tmp_path / "adapter" / "base"), tmp_path / "adapter"
    )
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    tokens = torch.arange(2, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(merged(tokens).logits, adapted(tokens).logits, atol=2e-4, rtol=1e-3)


def test_an_adapter_of_qlora_says_so_where_it_is_merged(base: Path, data: Path, tmp_path: Path) -> None:
    from drupe.api import registry, resolve

    run(str(base), config(data), tmp_path / "out")
    model = resolve(str(base), {"adapter": [tmp_path / "out"]}, registry())
    assert any("was trained on weights in 4 bits (drupe)" in notice.what for notice in model.notices)
    note = tmp_path / "out" / "finetune.json"
    note.write_bytes(note.read_bytes()[:20])
    with pytest.raises(ModelError, match=r"finetune\.json") as caught:
        resolve(str(base), {"adapter": [tmp_path / "out"]}, registry())
    assert caught.value.where == str(note)


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"quantizer": "bitsandbytes"}, RuntimeMissing, "only on a GPU, and there is none here"),
        ({"method": "lora", "quantizer": "drupe"}, UsageError, "--quantizer has no effect"),
        ({"method": "lora", "loftq_iterations": 3}, UsageError, "--loftq-iterations has no effect"),
        ({"method": "full", "rank": 8}, UsageError, "--rank has no effect: --method full"),
        ({"epochs": 2.0}, UsageError, "--epochs has no effect: --max-steps"),
        ({"method": "dora", "init": "loftq"}, UsageError, "--init loftq does not work with --method dora"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_data_are_read(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], error: Any, says: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(error, match=says):
        run(str(base), config(tmp_path / "missing.txt", **settings), tmp_path / "out")
    assert not (tmp_path / "out").exists()
