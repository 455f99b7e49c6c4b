"""The examples of the README work: all Python code, and the commands that need no network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tiny import make_checkpoint

README = Path(__file__).parents[1].joinpath("README.md").read_text("utf-8")
BLOCKS = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "hookimpl" not in block]

MODULES = '[{"path": "", "type": "models.Transformer"}, {"path": "1_Pooling", "type": "models.Pooling"}]'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's names exist: DIR_OR_HUB_ID, OUT, made by the first block, and EMBEDDER."""
    folder = tmp_path_factory.mktemp("readme")
    make_checkpoint(folder / "DIR_OR_HUB_ID", "qwen2", tie_word_embeddings=True)
    _run(BLOCKS[0], folder)
    optimize = f"drupe.optimize({str(folder / 'DIR_OR_HUB_ID')!r}, output='EMBEDDER', precision='fp32')"
    (folder / "DIR_OR_HUB_ID" / "modules.json").write_text(MODULES)
    (folder / "DIR_OR_HUB_ID" / "1_Pooling").mkdir()
    (folder / "DIR_OR_HUB_ID" / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    _run(f"import drupe; {optimize}", folder)
    return folder


def _run(script: str, folder: Path) -> str:
    return subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("block", BLOCKS[1:], ids=lambda block: block.split()[1])
def test_a_package_runs_without_drupe(folder: Path, block: str) -> None:
    assert "drupe" not in block
    assert _run(block, folder).strip()


def test_every_option_in_the_readme_exists() -> None:
    command = [sys.executable, "-c", "from drupe_commands.program import main; main()", "optimize", "--help"]
    known = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    table = README.partition("Options of `optimize`;")[2].partition("A workflow file")[0]
    options = set(re.findall(r"`(--[a-z-]+)", table))
    assert len(options) > 12
    assert [option for option in sorted(options) if option not in known] == []


def test_every_command_in_the_readme_exists() -> None:
    named = set(re.findall(r"^    drupe ([a-z-]+)", README, re.MULTILINE))
    command = [sys.executable, "-c", "from drupe_commands.program import main; main()", "--help"]
    known = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert len(named) >= 8
    assert [name for name in sorted(named) if f"\n  {name} " not in known] == []


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with the plugins of docs/plugins.md: the wheel that the files of the page make, unpacked."""
    page = Path(__file__).parents[1].joinpath("docs", "plugins.md").read_text("utf-8")
    files = dict(re.findall(r"`(pyproject\.toml|acme_npu/\w+\.\w+)`[^\n]*:\n\n```\w+\n(.*?)```", page, re.DOTALL))
    (line,) = re.findall(r"`(acme-quality = .*?)`", page)
    files["pyproject.toml"] = files["pyproject.toml"].replace("\n\n[tool.", f"\n{line}\n\n[tool.")
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "acme_npu").mkdir()
    for name, text in files.items():
        (source / name).write_text(text)
    build = f"from hatchling.build import build_wheel; build_wheel({str(site)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = site.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    return {**os.environ, "PYTHONPATH": str(site), "XDG_CACHE_HOME": str(site), "COLUMNS": "100"}


def test_the_provider_of_the_documentation_works(documented: dict[str, str]) -> None:
    command = [sys.executable, "-m", "drupe", "providers", "AcmeExecutionProvider"]
    done = subprocess.run(command, env=documented, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("acme: Acme's accelerator cards")
    assert "import (activations=float16) > prepare > quantize (bits=4, symmetric=True) > package" in done.stdout


def test_the_quality_of_the_documentation_has_its_flag(documented: dict[str, str]) -> None:
    command = [sys.executable, "-m", "drupe", "optimize", "--help"]
    done = subprocess.run(command, env=documented, capture_output=True, text=True, check=True)
    assert "--silu-limit <float>" in done.stdout
    assert re.search(r"--quality <[a-z|]*\bacme\b", done.stdout)


def test_the_page_shows_as_many_files_of_the_provider_as_it_says(documented: dict[str, str]) -> None:
    site = Path(documented["PYTHONPATH"])
    shown = {path.name for path in (site / "acme_npu").iterdir() if path.is_file()} - {"quality.py"}
    page = Path(__file__).parents[1].joinpath("docs", "plugins.md").read_text("utf-8")
    assert shown == {"__init__.py", "plugin.py", "provider.py", "operators.json"}
    assert "in five files" in page  # these, and pyproject.toml
