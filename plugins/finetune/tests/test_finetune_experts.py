"""Adapters of experts: trained where they are named, merged as peft merges them, refused where peft has no way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters import merged_by_peft
from tiny import make_checkpoint

from drupe.api import DrupeError, UsageError, registry, resolve
from drupe_onnx import Files

pytest.importorskip("peft")

from drupe_finetune.command import run
from drupe_finetune.settings import FinetuneConfig

EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}
BOTH = ("experts.gate_up_proj", "experts.down_proj")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("experts") / "data.txt"
    path.write_text("\n\n".join("for text in " * (1 + at % 3) for at in range(8)))
    return path


@pytest.fixture(scope="module", params=["gpt_oss", "mixtral"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("bases") / "base", request.param, **EXPERTS)


def config(data: Path, **settings: Any) -> FinetuneConfig:
    return FinetuneConfig(**{"data": str(data), "rank": 4, "max_steps": 2, "batch_size": 4, **settings})


def changed(base: Path, adapter: Path) -> set[str]:
    """The tensors that the adapter changes."""
    found = []
    with Files() as files:
        for given in ([], [adapter]):
            model = resolve(str(base), {"adapter": given}, registry())
            found.append({name: np.array(each.value(files)) for name, each in model.payload.tensors().items()})
    return {name for name, value in found[0].items() if not np.array_equal(value, found[1][name])}


@pytest.mark.parametrize("settings", [{"targets": BOTH}, {"targets": ("q_proj", "down_proj"), "method": "qlora"}, {}])
def test_an_adapter_of_experts_is_merged_as_peft_merges_it(
    settings: dict[str, Any], base: Path, data: Path, tmp_path: Path
) -> None:
    run(str(base), config(data, **settings), tmp_path / "adapter")
    names = changed(base, tmp_path / "adapter")
    assert any("experts" in name for name in names) == bool(settings or "mixtral" in (base / "config.json").read_text())
    assert any("q_proj" in name for name in names) == (settings.get("targets") != BOTH)
    wanted = merged_by_peft(base, [tmp_path / "adapter"])
    with Files() as files:
        model = resolve(str(base), {"adapter": [tmp_path / "adapter"]}, registry())
        for name, tensor in model.payload.tensors().items():
            if name in wanted:
                np.testing.assert_allclose(tensor.value(files), wanted[name], rtol=2e-6, atol=2e-6, err_msg=name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": BOTH, "method": "dora"}, "linear modules only, and not parameters: experts.gate_up_proj"),
        ({"targets": BOTH, "method": "loha"}, "--method loha changes linear"),
        ({"targets": BOTH, "dropout": 0.1}, "no dropout for parameters: experts.gate_up_proj"),
        ({"targets": ("q_proj", "q_prj")}, "names q_prj, which the model does not have"),
    ],
)
def test_what_experts_cannot_be_given_is_refused_by_name(
    settings: dict[str, Any], message: str, base: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        run(str(base), config(data, **settings), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_what_peft_refuses_is_told_with_a_cure(data: Path, tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", "mixtral", **EXPERTS)
    for settings, reason, cure in (
        ({"dropout": 0.1}, "lora_dropout", "--dropout 0"),
        ({"targets": ("w1",)}, "without also targeting", "gate_up_proj"),
    ):
        with pytest.raises(DrupeError, match=reason) as caught:
            run(str(base), config(data, **settings), tmp_path / "adapter")
        assert cure in str(caught.value.cure)
