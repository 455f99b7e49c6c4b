"""A distribution that brings a family of decoders, as docs/families.md shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from sites import Site
from tiny import make_checkpoint

PAGE = Path(__file__).resolve().parents[1] / "docs" / "families.md"
NAMES = {"model.embed_tokens": "acme.table", "model.layers": "acme.blocks", "model.norm": "acme.norm"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site with the distribution of the page."""
    found = Site(tmp_path / "site")
    sources = re.findall(r"```python\n# (acme_\w+\.py)[^\n]*\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    found.add("acme-families", {"acme-families": "acme_families"}, dict(sources))
    return found


def as_acme(checkpoint: Path) -> Path:
    """The checkpoint under the names of the family `acme`."""
    from safetensors.torch import load_file, save_file

    tensors = {}
    for name, tensor in load_file(checkpoint / "model.safetensors").items():
        for old, new in NAMES.items():
            name = name.replace(old, new)
        tensors[name] = tensor
    save_file(tensors, checkpoint / "model.safetensors")
    config = json.loads((checkpoint / "config.json").read_text())
    config |= {"model_type": "acme", "architectures": ["AcmeForCausalLM"]}
    (checkpoint / "config.json").write_text(json.dumps(config))
    return checkpoint


def test_a_family_of_a_third_party_is_listed_and_built(site: Site, tmp_path: Path) -> None:
    plain = make_checkpoint(tmp_path / "llama")
    checkpoint = as_acme(make_checkpoint(tmp_path / "acme"))
    assert "Acme: Llama with names of its own" in site.run("inspect", "--families").stdout
    assert "RMS norm, attention" in site.run("inspect", checkpoint).stdout
    for source, out in ((plain, "one"), (checkpoint, "other")):
        done = site.run("optimize", source, "-o", tmp_path / out, "--precision", "fp32", "--no-verify")
        assert done.returncode == 0, done.stderr
    one, other = ((tmp_path / out / "model.onnx.data").read_bytes() for out in ("one", "other"))
    assert one == other


def test_without_the_distribution_the_error_says_how_a_family_is_brought(tmp_path: Path) -> None:
    checkpoint = as_acme(make_checkpoint(tmp_path / "acme"))
    done = Site(tmp_path / "empty").run("optimize", checkpoint, "-o", tmp_path / "out")
    assert done.returncode == 3
    assert "'AcmeForCausalLM' (model_type acme) is not supported" in done.stderr and "--families" in done.stderr
