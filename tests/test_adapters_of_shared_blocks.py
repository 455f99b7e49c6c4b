"""Adapters of blocks that layers share: each use is what peft's adapter makes of it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import decoder_families
import numpy as np
import pytest
import tiny
from adapters import make_adapter, merged_by_peft
from safetensors.numpy import load_file, save_file

import drupe
from drupe.api import registry, resolve
from drupe_checkpoints import checkpoint_of
from drupe_checkpoints.adapters.writing import configuration_of
from drupe_onnx import Files

peft = pytest.importorskip("peft")
SHARED = ".shared_transformer."
CASES = ["zamba2", "zamba2, one block"]
"""In both, the layers 1, 3 and 4 use shared blocks; layers 1 and 4 use the same one."""


@pytest.fixture(scope="module", params=CASES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint, _ = decoder_families.make(request.param, tmp_path_factory.mktemp("zamba2"))
    tiny.write_tokenizer(checkpoint)
    return checkpoint


def lora(**settings: Any) -> Any:
    return peft.LoraConfig(**{"r": 2, "target_modules": ["q_proj", "o_proj", "gate_up_proj"], **settings})


def saved(base: Path, adapter: Path, folder: Path) -> Path:
    """The checkpoint with an adapter, written as a checkpoint of its own."""
    model = resolve(str(base), {"adapter": [adapter]}, registry())
    folder.mkdir()
    with Files() as files:
        held = {name: np.ascontiguousarray(each.value(files)) for name, each in model.payload.tensors().items()}
    save_file(held, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_bytes((base / "config.json").read_bytes())
    configuration_of(checkpoint_of(model), folder)
    return folder


def logits(folder: Path, adapter: Path | None = None) -> np.ndarray:
    """What transformers computes, with an adapter that is not merged."""
    import torch
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(folder)
        if adapter is not None:
            model = peft.PeftModel.from_pretrained(model, str(adapter))
        found: np.ndarray = model(torch.arange(20)[None] + 5).logits.numpy()
    return found


@pytest.mark.parametrize("targets", [["q_proj", "o_proj", "gate_up_proj"], "all-linear"])
def test_each_use_is_what_the_adapter_makes_of_it(targets: Any, base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", base, lora(target_modules=targets))
    wanted = logits(base, adapter)
    found = logits(saved(base, adapter, tmp_path / "merged"))
    assert np.abs(wanted - logits(base)).max() > 0.1
    np.testing.assert_allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())


def test_an_adapter_of_the_first_use_changes_all_uses(base: Path, tmp_path: Path) -> None:
    """As transformers 4 named a module that several layers share, and as peft merges it."""
    config = lora(target_modules=r".*layers\.1\..*o_proj")
    adapter = make_adapter(tmp_path / "adapter", base, config)
    model = resolve(str(base), {"adapter": [adapter]}, registry())
    wanted, stored = merged_by_peft(base, [adapter]), load_file(base / "model.safetensors")
    with Files() as files:
        found = {name: np.array(each.value(files)) for name, each in model.payload.tensors().items()}
    assert found.keys() == stored.keys()
    for name, value in found.items():
        np.testing.assert_allclose(value, wanted[name], rtol=2e-6, atol=2e-6, err_msg=name)
    assert not any("each use" in each.what for each in model.notices)


def test_a_package_with_an_adapter_of_all_linear_modules_passes_its_check(base: Path, tmp_path: Path) -> None:
    """Modules hold small matrices of other uses as well, whose changes nothing runs."""
    adapter = make_adapter(tmp_path / "adapter", base, lora(target_modules="all-linear"))
    made = drupe.optimize(base, tmp_path / "out", adapter=[adapter], provider="cpu", precision="fp32")
    assert made.check.metrics["kl_divergence"] < 1e-4


def test_a_package_has_what_the_uses_share_once(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", base, lora(target_modules=["o_proj"]))
    made = drupe.optimize(base, tmp_path / "out", adapter=[adapter], provider="cpu", precision="fp32")
    assert made.check.metrics["kl_divergence"] < 1e-4
    drupe.optimize(base, tmp_path / "plain", provider="cpu", precision="fp32", verify=False)
    shapes = {name: each.size for name, each in load_file(base / "model.safetensors").items()}
    own = shapes["model.layers.1.shared_transformer.self_attn.o_proj.weight"] * 4
    sizes = [(tmp_path / each / "model.onnx.data").stat().st_size for each in ("out", "plain")]
    more = {"zamba2": 1, "zamba2, one block": 2}[CASES['num_mem_blocks": 1' in (base / "config.json").read_text()]]
    assert sizes[0] - sizes[1] == pytest.approx(more * own, abs=5000)
    notices = json.loads((tmp_path / "out" / "drupe.json").read_text())["notices"]
    assert any("each use of a shared block in its own way" in each["what"] for each in notices)


def test_adapters_of_shared_blocks_are_switched(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "one", base, lora(target_modules="all-linear"))
    made = drupe.optimize(base, tmp_path / "out", adapters=[adapter], provider="cpu", precision="fp32")
    assert made.check.metrics["kl_divergence"] < 1e-4
    assert made.check.metrics["kl_divergence with adapter one"] < 1e-4
    drupe.optimize(base, tmp_path / "plain", provider="cpu", precision="fp32", verify=False)
    sizes = [(tmp_path / each / "model.onnx.data").stat().st_size for each in ("out", "plain")]
    assert sizes[0] == pytest.approx(sizes[1], abs=20_000)
