"""The keys of the cache: any change of an input changes the key, and nothing else does."""

from __future__ import annotations

import copy
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import Field, computed_field

from drupe.api import Device, Model, Pass, PassConfig, Record, Run, Target, replace
from drupe_files import pass_keys


class Told(PassConfig):
    """A configuration with a value of every sort that passes have."""

    flag: bool = False
    number: int = 0
    share: float = 0.0
    text: str | None = None
    names: tuple[str, ...] = ()
    bits: dict[str, int] = Field(default_factory=dict)
    kinds: frozenset[str] = frozenset()
    table: Path | None = None
    tables: tuple[Path, ...] = ()
    place: str = ""

    @computed_field(json_schema_extra={pass_keys.STANDS_FOR: "place"})  # type: ignore[prop-decorator]
    @property
    def digest(self) -> str:
        return Path(self.place).read_text() if self.place else ""


class ToldAnew(Told):
    version = 2


class Step(Record):
    """A pass as a key sees it. table, place: the content of the files that two keys of the configuration name."""

    name: str
    revision: int
    plugin: str
    parts: frozenset[str]
    values: dict[str, Any]
    table: str | None
    place: str | None
    anew: bool = False
    libraries: tuple[str, ...] = ()


class Inputs(Record):
    """All that decides a result."""

    content: str
    kind_plugin: str
    task: str | None
    facts: dict[str, str]
    steps: tuple[Step, ...]
    provider: str
    provider_plugin: str
    runtime: str
    here: bool
    versions: dict[str, str]


WORDS = st.sampled_from(["a", "b", "ab", "1", "True", ""])
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "flag": st.booleans(),
        "number": st.integers(-2, 2),
        "share": st.sampled_from([0.0, 0.5, 1.0]),
        "text": st.none() | WORDS,
        "names": st.lists(WORDS, max_size=3).map(tuple),
        "bits": st.dictionaries(WORDS, st.integers(0, 2), max_size=3),
        "kinds": st.frozensets(WORDS, max_size=3),
    },
)
STEPS = st.builds(
    Step,
    name=st.sampled_from(["sign", "shout"]),
    revision=st.integers(1, 2),
    plugin=st.sampled_from(["acme 1.0", "acme 1.1", "rival 1.0"]),
    parts=st.frozensets(st.sampled_from(["high", "low"])),
    values=VALUES,
    table=st.none() | WORDS,
    place=st.none() | WORDS.filter(bool),
    anew=st.booleans(),
    libraries=st.sampled_from([(), ("numpy",), ("numpy", "torch")]),
)
INPUTS = st.builds(
    Inputs,
    content=WORDS,
    kind_plugin=st.sampled_from(["acme 1.0", "acme 1.1"]),
    task=st.none() | WORDS,
    facts=st.dictionaries(st.sampled_from(["signed", "ink"]), WORDS, max_size=2),
    steps=st.lists(STEPS, min_size=1, max_size=3).map(tuple),
    provider=st.sampled_from(["paper", "glass"]),
    provider_plugin=st.sampled_from(["acme 1.0", "acme 1.1"]),
    runtime=st.sampled_from(["1.20", "1.21"]),
    here=st.booleans(),
    versions=st.fixed_dictionaries({"numpy": st.sampled_from(["1", "2"]), "torch": st.sampled_from(["1", "2"])}),
)


def key_of(inputs: Inputs, at: int | None = None, accidents: int = 0) -> str:
    """The key of the passes up to `at`, in a folder of its own. accidents: decide on what must not matter."""
    chance = random.Random(accidents)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pass_keys, "installed_version", lambda names: inputs.versions[names[0]])
        run = _run(inputs, Path(folder), chance)
        return pass_keys.key_at(run, len(inputs.steps) - 1 if at is None else at)


def _run(inputs: Inputs, folder: Path, chance: random.Random) -> Run:
    location = folder / f"model{chance.random()}"
    source = Model("text", location, {"model": _shuffled(inputs.facts, chance)}, task=inputs.task)
    kind = SimpleNamespace(fingerprint=lambda model: inputs.content)
    device = Device(f"card {chance.random()}", "npu", chance.randrange(10**9)) if inputs.here else None
    found = SimpleNamespace(
        kinds=SimpleNamespace(find=lambda name: _entry(inputs.kind_plugin, kind)),
        providers=SimpleNamespace(find=lambda name: _entry(inputs.provider_plugin, None)),
    )
    context = SimpleNamespace(
        target=Target(inputs.provider, inputs.runtime, device=device), threads=chance.randrange(64), scratch=folder
    )
    steps = tuple(_ready(step, folder, chance) for step in inputs.steps)
    job = SimpleNamespace(source=source, id=str(chance.random()))
    return cast(Run, SimpleNamespace(found=found, job=job, context=context, passes=steps))


def _entry(plugin: str, made: Any) -> SimpleNamespace:
    return SimpleNamespace(plugin=SimpleNamespace(title=plugin), make=lambda: made)


def _ready(step: Step, folder: Path, chance: random.Random) -> SimpleNamespace:
    values = _shuffled(step.values, chance)
    if "bits" in values:
        values["bits"] = _shuffled(values["bits"], chance)
    if "kinds" in values:
        values["kinds"] = frozenset(chance.sample(sorted(values["kinds"]), len(values["kinds"])))
    if step.table is not None:
        values["table"] = _file(step.table, folder, chance)
        values["tables"] = (_file(step.table, folder / f"{chance.random()}", chance).parent,)
    if step.place is not None:
        values["place"] = str(_file(step.place, folder, chance))
    config = (ToldAnew if step.anew else Told)(**values)
    return SimpleNamespace(
        planned=SimpleNamespace(name=step.name, parts=tuple(chance.sample(sorted(step.parts), len(step.parts)))),
        plugin=SimpleNamespace(title=step.plugin),
        runner=cast(Pass, SimpleNamespace(revision=step.revision, libraries=step.libraries)),
        config=config,
    )


def _file(content: str, folder: Path, chance: random.Random) -> Path:
    """A file with a name and a time of its own; one in a folder of its own has one name, which the folder has."""
    alone = folder.name.startswith("0.")
    path = folder / ("table" if alone else f"table{chance.random()}")
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    os.utime(path, (chance.randrange(10**9), chance.randrange(10**9)))
    return path


def _shuffled(mapping: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    return dict(chance.sample(list(mapping.items()), len(mapping)))


def decisive(inputs: Inputs) -> Any:
    """What of the inputs decides: versions only of libraries that a pass names, and defaults like what is given."""
    used = {name for step in inputs.steps for name in step.libraries}
    steps = [replace(step, values=Told(**step.values).model_dump()) for step in inputs.steps]
    return replace(inputs, steps=tuple(steps), versions={name: inputs.versions[name] for name in used})


CHANGES: dict[str, Callable[[Inputs], Inputs]] = {
    "content": lambda inputs: replace(inputs, content=inputs.content + "x"),
    "kind's plugin": lambda inputs: replace(inputs, kind_plugin="acme 2.0"),
    "task": lambda inputs: replace(inputs, task="another"),
    "a fact": lambda inputs: replace(inputs, facts={**inputs.facts, "ink": "new"}),
    "provider": lambda inputs: replace(inputs, provider="stone"),
    "provider's plugin": lambda inputs: replace(inputs, provider_plugin="acme 2.0"),
    "runtime": lambda inputs: replace(inputs, runtime="2.0"),
    "device": lambda inputs: replace(inputs, here=not inputs.here),
    "one pass more": lambda inputs: replace(inputs, steps=(*inputs.steps, inputs.steps[0])),
    "a pass in front": lambda inputs: replace(inputs, steps=(replace(inputs.steps[0], name="new"), *inputs.steps)),
}
STEP_CHANGES: dict[str, Callable[[Step], Step]] = {
    "name": lambda step: replace(step, name="whisper"),
    "revision": lambda step: replace(step, revision=step.revision + 1),
    "plugin's version": lambda step: replace(step, plugin=f"{step.plugin}.1"),
    "parts": lambda step: replace(step, parts=step.parts | {"middle"}),
    "content of a file": lambda step: replace(step, table=f"{step.table}x"),
    "content of a digested text": lambda step: replace(step, place=f"{step.place}x"),
    "version of the configuration": lambda step: replace(step, anew=not step.anew),
    "libraries": lambda step: replace(step, libraries=() if step.libraries else ("numpy",)),
    **{
        f"option {name}": lambda step, name=name, value=value: replace(step, values={**step.values, name: value})
        for name, value in {
            "number": 7, "share": 0.25, "text": "new", "names": ("new",), "bits": {"new": 1},
            "kinds": frozenset({"new"}),
        }.items()
    },
}  # fmt: skip


@given(INPUTS, st.data())
def test_a_change_of_any_input_changes_the_key(inputs: Inputs, data: st.DataObject) -> None:
    changed = CHANGES[data.draw(st.sampled_from(sorted(CHANGES)))](inputs)
    assert key_of(changed) != key_of(inputs)


@given(INPUTS, st.data())
def test_a_change_of_any_pass_up_to_the_last_changes_the_key(inputs: Inputs, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(inputs.steps) - 1))
    changed = STEP_CHANGES[data.draw(st.sampled_from(sorted(STEP_CHANGES)))](inputs.steps[at])
    steps = (*inputs.steps[:at], changed, *inputs.steps[at + 1 :])
    assert key_of(replace(inputs, steps=steps)) != key_of(inputs)


@given(INPUTS, st.randoms())
def test_another_order_of_the_passes_changes_the_key(inputs: Inputs, chance: random.Random) -> None:
    steps = list(inputs.steps)
    chance.shuffle(steps)
    assume(decisive(replace(inputs, steps=tuple(steps))) != decisive(inputs))
    assert key_of(replace(inputs, steps=tuple(steps))) != key_of(inputs)


@given(INPUTS, INPUTS)
def test_two_jobs_have_one_key_only_if_all_inputs_are_equal(one: Inputs, other: Inputs) -> None:
    assert (key_of(one) == key_of(other)) == (decisive(one) == decisive(other))


@given(INPUTS, st.integers(1, 10**6))
def test_nothing_else_changes_the_key(inputs: Inputs, accidents: int) -> None:
    """Neither places and times of files, nor orders of keys, sets and parts, nor the device's name, threads and run."""
    assert key_of(copy.deepcopy(inputs), accidents=accidents) == key_of(inputs)


@given(INPUTS, STEPS)
def test_a_later_pass_does_not_change_the_key(inputs: Inputs, later: Step) -> None:
    longer = replace(inputs, steps=(*inputs.steps, later))
    assert key_of(longer, at=len(inputs.steps) - 1) == key_of(inputs)


@given(INPUTS, st.sampled_from(["numpy", "torch"]))
def test_a_librarys_version_changes_the_key_where_a_pass_names_the_library(inputs: Inputs, name: str) -> None:
    upgraded = replace(inputs, versions={**inputs.versions, name: "3"})
    named = any(name in step.libraries for step in inputs.steps)
    assert (key_of(upgraded) != key_of(inputs)) == named


def test_an_option_that_is_given_its_default_has_the_key_of_one_that_is_left_out() -> None:
    step = Step("sign", 1, "acme 1.0", frozenset(), {}, None, None)
    inputs = Inputs("a", "acme 1.0", None, {}, (step,), "paper", "acme 1.0", "1.20", True, {})
    spelled = replace(inputs, steps=(replace(step, values={"number": 0, "text": None}),))
    assert key_of(spelled) == key_of(inputs)


def test_a_set_has_one_key_in_every_process() -> None:
    """Each process orders a set of texts in its own way."""
    script = "from drupe_files.pass_keys import _identity; print(_identity({'a', 'b', 'c', 'd', frozenset('xyz')}))"
    told = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(told) == 1 and "xyz" not in told and told != {""}
