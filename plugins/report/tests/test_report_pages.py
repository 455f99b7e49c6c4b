"""`drupe report`: pages about a package and about a search, in a browser where one is here, and as JSON."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import make_checkpoint

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
STUDY: dict[str, Any] = {
    "version": 1,
    "parameters": [{"name": "options.block_size"}, {"name": "options.symmetric"}],
    "objectives": [
        {"metric": "bytes", "unit": "bytes", "sign": 1, "low": None, "high": None, "optimized": True},
        {"metric": "kl_divergence", "unit": "nats/token", "sign": 1, "low": None, "high": 0.2, "optimized": True},
        {"metric": "rate", "unit": "tokens/s", "sign": -1, "low": None, "high": None, "optimized": True},
    ],
    "trials": [
        {
            "number": number, "reason": reason, "seconds": 1.5, "plan": {"version": 1}, "in_full": number != 4,
            "values": {"options.block_size": block, "options.symmetric": block == 32},
            "metrics": {
                name: {"name": name, "value": value, "unit": "", "better": "lower"}
                for name, value in zip(("bytes", "kl_divergence", "rate"), values, strict=False)
            },
        }
        for number, block, values, reason in (
            (1, 32, (2_200_000, 0.02, 90.0), ""),
            (2, 64, (2_000_000, 0.04, 100.0), ""),
            (3, 128, (), "blocks of 128 do not fit <b>here</b>"),
            (4, 256, (1_900_000, 0.05, 80.0), ""),
        )
    ],
    "frontier": [1, 2],
    "left_brief": [4],
    "chosen": 2,
    "output": "out",
}  # fmt: skip


def drupe(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "drupe", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    done = drupe("optimize", make_checkpoint(folder / "model"), "-o", folder / "out", "--tokens", 32)
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "out.study"
    folder.mkdir()
    (folder / "study.json").write_text(json.dumps(STUDY))
    return folder


def test_the_page_of_a_fine_tuning_has_its_losses(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    note: dict[str, Any] = {
        "base": {"quantizer": "drupe", "bits": 4}, "settings": {"method": "qlora", "data": "<b>.jsonl"}, "rows": 24,
        "left_out": ["line 3"], "steps": 40, "losses": {"2": 3.25, "40": 1.5}, "evaluated": {"40": 1.75},
        "seconds": 12.5, "versions": {"torch": "2.13.0"},
    }  # fmt: skip
    (folder / "finetune.json").write_text(json.dumps(note))
    assert drupe("report", folder, "-o", tmp_path / "page.html").returncode == 0
    text = re.sub(r"<script.*?</script>", "", (tmp_path / "page.html").read_text(), flags=re.DOTALL)
    for told in ("3.25", "1.75", "24", "1 left out", "held in 4 bits by drupe", "&lt;b&gt;.jsonl"):
        assert told in text
    facts = json.loads(drupe("report", folder, "--json").stdout)
    assert facts["losses"] == {"2": 3.25, "40": 1.5}
    del note["losses"]
    (folder / "finetune.json").write_text(json.dumps(note))
    assert "the record of the training is damaged" in drupe("report", folder, "--json").stderr


def in_browser(page: Path, script: str = "") -> str:
    """The page's elements after its scripts and another one have run."""
    if CHROMIUM is None:
        pytest.skip("no chromium is installed (apt install chromium)")
    shown = page.with_name("shown.html")
    shown.write_text(
        page.read_text().replace("</main>", f"</main><script>addEventListener('load', () => {{{script}}})</script>")
    )
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run([CHROMIUM, *options, shown.as_uri()], capture_output=True, text=True, check=True, timeout=120)
    return re.sub(r"<script.*?</script>", "", done.stdout, flags=re.DOTALL)


def test_the_page_of_a_package_says_what_its_record_says(package: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert drupe("report", package, "-o", page).stdout.strip() == str(page)
    text = re.sub(r"<script.*?</script>", "", page.read_text(), flags=re.DOTALL)
    for told in ("quantize-weights", "kl divergence", "mlp.down", "drupe-quant-rtn 0.1.0"):
        assert told in text
    assert not re.search(r'(src|href)="(http|//)', page.read_text().split("</head>")[1])


def test_the_plots_of_a_package_are_drawn(package: Path, tmp_path: Path) -> None:
    drupe("report", package, "-o", tmp_path / "page.html")
    shown = in_browser(tmp_path / "page.html")
    assert len(re.findall(r'class="[^"]*js-plotly-plot', shown)) == 3 and shown.count("main-svg") >= 3


def test_layers_and_samples_are_measured_once_where_they_are_asked_for(package: Path, tmp_path: Path) -> None:
    measured, page = shutil.copytree(package, tmp_path / "measured"), tmp_path / "page.html"
    before = {path.name: path.read_bytes() for path in measured.iterdir() if path.name != "drupe.json"}
    drupe("report", measured, "-o", page)
    assert "--against MODEL" in page.read_text()
    asked = ("report", measured, "--against", package.parent / "model", "-o", page, "--force")
    assert drupe(*asked).returncode == 0
    record = json.loads((measured / "drupe.json").read_text())
    assert [each["evaluator"] for each in record["measured"]] == ["layers", "samples"]
    assert {path.name: path.read_bytes() for path in measured.iterdir() if path.name != "drupe.json"} == before
    drupe(*asked)
    assert json.loads((measured / "drupe.json").read_text()) == record
    shown = in_browser(page)
    assert len(re.findall(r'class="[^"]*js-plotly-plot', shown)) == 5
    texts = [each["detail"] for each in record["measured"][1]["metrics"]]
    assert shown.count('<section class="sample"') == len(texts) and shown.count("<mark>") <= 2 * len(texts)
    facts = json.loads(drupe("report", measured, "--json").stdout)
    assert facts["measured"] == record["measured"]


def test_what_any_evaluator_measured_is_shown_with_its_spread(package: Path, tmp_path: Path) -> None:
    measured = shutil.copytree(package, tmp_path / "measured")
    record = json.loads((measured / "drupe.json").read_text())
    metric = {"name": "wonder", "value": 3.5, "unit": "<b>", "better": "higher", "spread": [3, 4], "detail": {}}
    record["measured"] = [
        {
            "evaluator": "mine", "brought_by": "mine 1", "metrics": [metric], "settings": {}, "against": None,
            "moment": "2026-01-01T00:00:00+00:00",
        }
    ]  # fmt: skip
    (measured / "drupe.json").write_text(json.dumps(record))
    drupe("report", measured, "-o", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "wonder" in text and "&lt;b&gt;" in text and "3 to 4" in text
    del metric["value"]
    (measured / "drupe.json").write_text(json.dumps(record))
    assert "damaged" in drupe("report", measured, "--json").stderr


def test_the_page_of_a_search_has_its_frontier_and_sorts_its_trials(study: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert drupe("report", study, "-o", page).returncode == 0
    assert "&lt;b&gt;here&lt;/b&gt;" in page.read_text()  # a reason is text
    assert "measured briefly, perhaps on the frontier" in page.read_text() and "briefly of 1 trial" in page.read_text()
    shown = in_browser(page, "document.querySelectorAll('#trials th button')[3].click()")
    rows = re.findall(r"<tr class=\"(\w*)\">\s*<td data-value=\"(\d)\"", shown)
    assert rows == [("", "4"), ("chosen", "2"), ("", "1"), ("failed", "3")]
    assert 'aria-sort="ascending"' in shown and "main-svg" in shown


def test_json_has_the_same_numbers(package: Path, study: Path) -> None:
    facts = json.loads(drupe("report", package, "--json").stdout)
    assert facts["repeat"] == "drupe run out/drupe.json -o out-again"
    record = json.loads((package / "drupe.json").read_text())
    assert {each["name"]: each["value"] for each in facts["metrics"]} == record["check"]["metrics"]
    assert sum(facts["bytes_by_layer"].values()) == sum(facts["bytes_by_matrix"].values())
    assert sum(facts["bytes_by_matrix"].values()) == pytest.approx(
        record["files"]["model.onnx.data"]["bytes"], rel=0.05
    )
    searched = json.loads(drupe("report", study, "--json").stdout)
    assert [each["on_frontier"] for each in searched["trials"]] == [True, True, False, False]
    assert searched["repeat"] == "drupe run out.study/plan-2.json -o out-again"


def test_what_cannot_be_reported_is_said(package: Path, study: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "drupe.json").write_text('{"files": 3}')
    (tmp_path / "page.html").write_text("mine")
    for arguments, said in (
        ((tmp_path / "nowhere",), "there is no folder"),
        ((tmp_path / "nowhere", "--against", package), "there is no folder"),
        ((tmp_path / "empty",), "neither drupe.json nor study.json"),
        ((tmp_path / "broken",), "damaged"),
        ((study, "-o", tmp_path / "page.html"), "--force"),
        ((study, "--against", package), "--against has no effect"),
        ((package, "--against", tmp_path / "nowhere", "-o", tmp_path / "none.html"), "nowhere"),
        ((study, "-o", tmp_path / "missing" / "page.html"), "missing"),
    ):
        done = drupe("report", *arguments)
        assert done.returncode not in (0, 70) and said in done.stderr, done.stderr
    assert (tmp_path / "page.html").read_text() == "mine"
    assert not (tmp_path / "none.html").exists()


def test_layers_of_several_parts_are_told_apart(package: Path, tmp_path: Path) -> None:
    parts = shutil.copytree(package, tmp_path / "parts")
    shutil.copy(parts / "model.onnx", parts / "encoder.onnx")
    one, two = (json.loads(drupe("report", folder, "--json").stdout) for folder in (package, parts))
    layers, outside = one["bytes_by_layer"], "outside of the layers"
    both = {f"{part} {number}": size for part in ("encoder", "model") for number, size in layers.items()}
    expected = {name: size for name, size in both.items() if not name.endswith(outside)}
    assert two["bytes_by_layer"] == {**expected, outside: 2 * layers[outside]}
    assert sum(two["bytes_by_matrix"].values()) == 2 * sum(one["bytes_by_matrix"].values())
