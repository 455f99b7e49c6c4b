"""The evaluator `samples`: the source's own greedy text, and where the package's differs first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import drupe
from drupe.api import UsageError

PROMPTS = ["def parse(text):", "the quick brown fox", "jumps"]


def texts(package: Path, against: Path | None, **settings: Any) -> list[dict[str, Any]]:
    metrics = drupe.evaluate(package, against, evaluator="samples", **{"prompts": PROMPTS, **settings})
    return [{"share": each.value, **each.detail} for each in metrics]


def written(sample: dict[str, Any], side: str) -> str:
    return "".join(sample[side])


@pytest.mark.parametrize("with_beginning", [False, True])
def test_the_source_is_continued_as_transformers_does(
    with_beginning: bool,
    checkpoint: Path,
    checkpoint_with_beginning: Path,
    package: Callable[..., Path],
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = checkpoint_with_beginning if with_beginning else checkpoint
    model, tokenizer = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    for prompt, sample in zip(PROMPTS, texts(package(source, "int4"), source, new_tokens=16), strict=True):
        given = tokenizer(prompt, return_tensors="pt").input_ids
        expected = model.generate(given, do_sample=False, max_new_tokens=16)[0]
        before, whole = tokenizer.decode(given[0]), tokenizer.decode(expected)
        assert written(sample, "source") == whole.removeprefix(before)
        assert sample["prompt"] == prompt
        assert (sample["share"] < 1) == (written(sample, "source") != written(sample, "package"))
        assert sample["source"][0] == sample["package"][0]


def test_a_package_writes_what_it_writes_itself(checkpoint: Path, package: Callable[..., Path]) -> None:
    made = package(checkpoint, "int4")
    for sample in texts(made, made, new_tokens=8):
        assert sample["share"] == 1 and written(sample, "source") == written(sample, "package") == sample["package"][0]


def test_one_prompt_may_stand_alone_and_all_have_to_fit(checkpoint: Path, package: Callable[..., Path]) -> None:
    made = package(checkpoint, "int4")
    assert [each["prompt"] for each in texts(made, made, prompts="fox", new_tokens=2)] == ["fox"]
    with pytest.raises(UsageError, match="300 tokens, and the model's context is 128"):
        texts(made, made, prompts="x" * 300)
    with pytest.raises(UsageError, match="compared with those of another model"):
        texts(made, None)
