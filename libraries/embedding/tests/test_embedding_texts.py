"""Pooling in numpy, the description in a graph's metadata, and texts on their way to a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from drupe.api import ModelError, Session, UsageError
from drupe_embedding import EmbeddingDescription, description_from, embed_texts, embedding_session, pooled

ROWS = np.array([[1.0, -4.0], [3.0, 0.0], [2.0, 1.0]], np.float32)


class Words:
    """A tokenizer: each character is a token."""

    def encode_whole(self, text: str, most: int | None = None) -> list[int]:
        return [ord(character) for character in text][:most]


def run(inputs: Any, outputs: Any) -> Any:
    """A graph whose embedding is the sum of the tokens and their number. All rows are tokens."""
    assert inputs["attention_mask"].all() and list(outputs) == ["sentence_embedding"]
    ids = inputs["input_ids"]
    return {"sentence_embedding": np.stack([ids.sum(1), np.full(len(ids), ids.shape[1])], 1).astype(np.float32)}


@pytest.mark.parametrize(
    ("mode", "want"),
    [
        ("cls", [1, -4]),
        ("lasttoken", [2, 1]),
        ("max", [3, 1]),
        ("mean", [2, -1]),
        ("mean_sqrt_len_tokens", [6 / 3**0.5, -3 / 3**0.5]),
        ("weightedmean", [(1 + 6 + 6) / 6, (-4 + 0 + 3) / 6]),
    ],
)
def test_each_mode_pools_as_sentence_transformers_does(mode: str, want: list[float]) -> None:
    assert pooled(ROWS, [mode], normalized=False) == pytest.approx(want)


def test_several_modes_are_joined_and_normalized_together() -> None:
    got = pooled(ROWS, ["cls", "mean"], normalized=True)
    assert got == pytest.approx(np.array([1, -4, 2, -1]) / 22**0.5)


def test_embeddings_come_in_the_order_of_the_texts_whatever_their_lengths() -> None:
    got = embed_texts(run, Words(), EmbeddingDescription(("mean",)), ["abc", "b", "xyz", "c"])  # type: ignore[arg-type]
    assert got.tolist() == [[294, 3], [98, 1], [363, 3], [99, 1]]


def test_a_prompt_is_put_before_each_text_and_long_texts_are_cut() -> None:
    description = EmbeddingDescription(
        ("mean",), max_length=3, prompts={"query": "ab", "none": ""}, default_prompt="query"
    )
    assert embed_texts(run, Words(), description, ["cd"]).tolist() == [[294, 3]]  # type: ignore[arg-type]
    assert embed_texts(run, Words(), description, ["c"], "none").tolist() == [[99, 1]]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("description", "texts", "prompt", "error", "says"),
    [
        (EmbeddingDescription(), ["a"], None, ModelError, "how they are pooled is not known"),
        (EmbeddingDescription(("mean",)), ["a", ""], None, UsageError, "text 2 is empty"),
        (EmbeddingDescription(("mean",)), [], None, UsageError, "no text"),
        (EmbeddingDescription(("mean",)), ["a"], "query", UsageError, "has no prompts"),
        (EmbeddingDescription(("mean",), prompts={"query": ""}), ["a"], "qurey", UsageError, "did you mean query"),
    ],
)
def test_what_cannot_be_embedded_is_one_error(description: Any, texts: Any, prompt: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        embed_texts(run, Words(), description, texts, prompt)  # type: ignore[arg-type]


def test_a_description_that_is_broken_is_an_error_and_unknown_keys_are_not() -> None:
    assert description_from('{"modes": ["cls"], "later": 1}') == EmbeddingDescription(("cls",))
    for broken in ("[]", "{", '{"modes": 1}'):
        with pytest.raises(ModelError, match=r"drupe\.embedding"):
            description_from(broken)


def test_a_session_of_another_task_gives_no_embeddings() -> None:
    class Other(Session):
        def close(self) -> None:
            pass

    with pytest.raises(ModelError, match="no embeddings"):
        embedding_session(Other())
