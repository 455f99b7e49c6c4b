"""`drupe run` on workflow files of other tools: what a plugin's reader gives, and readers that fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sites import Site

READER = """
from drupe.api import Notice, Ref, hookimpl

@hookimpl
def drupe_workflow_readers():
    return [Ref("jobs", "jobs_reading:read", "the job files of another tool")]
"""
READ = """
from drupe.api import Notice

def read(document, model):
    if "job" not in document:
        return None
    notices = [Notice("job", "kept", "signed")]
    if document["job"] == "paint":
        return None, [*notices, Notice("job", "missing", "painting", "do it by hand")]
    passes = [{"sign": {"by": "me"}}]
    return {"model": model or document["of"], "target": "paper", "passes": passes}, notices
"""
BROKEN = {
    "raises": "raise RuntimeError('out of order')",
    "gives-a-number": "return 7",
    "gives-another-handling": "from drupe.api import Notice; return {}, [Notice('a', 'done', 'b')]",
    "gives-no-workflow": "return None, []",
}


@pytest.fixture
def job(acme: Site, source: Path, tmp_path: Path) -> Path:
    """The job file of a tool that an installed plugin knows."""
    acme.add("jobs", {"jobs": "jobs"}, {"jobs.py": READER, "jobs_reading.py": READ})
    acme.allow("acme", "jobs")
    file = tmp_path / "job.yaml"
    file.write_text(f"job: sign\nof: {source}\n")
    return file


def test_a_file_that_a_plugin_reads_is_carried_out_and_told_line_by_line(acme: Site, job: Path, tmp_path: Path) -> None:
    done = acme.run_here("run", job, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.txt").read_text() == "hello -- me"
    assert "kept      job  signed" in done.stderr and "kept" not in done.stdout


def test_a_dry_run_prints_the_lines_and_the_workflow_and_makes_nothing(acme: Site, job: Path, tmp_path: Path) -> None:
    told = json.loads(acme.run_here("run", job, "--dry-run", "--json", "-o", tmp_path / "out").stdout)
    assert told["workflow"]["target"] == "paper" and told["lines"][0]["handling"] == "kept"
    assert not (tmp_path / "out").exists()


def test_a_file_with_something_missing_is_refused_with_what_to_do(acme: Site, job: Path, tmp_path: Path) -> None:
    job.write_text("job: paint\n")
    done = acme.run_here("run", job, "-o", tmp_path / "out")
    assert done.returncode == 2 and "painting" in done.stderr and "do it by hand" in done.stderr
    told = acme.run_here("run", job, "--dry-run")
    assert told.returncode == 0 and "1 missing" in told.stdout


@pytest.mark.parametrize("way", BROKEN)
def test_a_reader_that_fails_disables_its_plugin_and_nothing_else(
    acme: Site, source: Path, tmp_path: Path, way: str
) -> None:
    read = f"def read(document, model):\n    {BROKEN[way]}\n"
    acme.add("jobs", {"jobs": "jobs"}, {"jobs.py": READER, "jobs_reading.py": read})
    acme.allow("acme", "jobs")
    ours, others = tmp_path / "flow.yaml", tmp_path / "other.yaml"
    ours.write_text(f"model: {source}\ntarget: paper\npasses: [{{sign: {{by: me}}}}]\n")
    others.write_text("job: sign\n")
    done = acme.run_here("run", ours, "-o", tmp_path / "out")
    assert done.returncode == 0 and "jobs" not in done.stderr  # nobody asks a plugin what a file of Drupe is
    done = acme.run_here("run", others, "-o", tmp_path / "out2")
    assert done.returncode == 2 and "jobs" in done.stderr and "neither a plan nor a workflow" in done.stderr
