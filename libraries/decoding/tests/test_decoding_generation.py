"""Settings for generating text, and sessions that generate it."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from drupe.api import ModelError, Session, UsageError
from drupe_decoding import Generation, Message, NoRoom, Stopwatch, TextSession, Timing, refuse_no_room, text_session


class Parrot(TextSession):
    """A session that repeats the words of the prompt, up to the number asked for."""

    max_length = 4
    context_length = 8

    def stream(self, prompt: str, generation: Generation | None = None) -> Iterator[str]:
        words = prompt.split()
        refuse_no_room(range(len(words)), self)
        return iter(words[: (generation or Generation()).max_new_tokens])

    def conversation(self, messages: Sequence[Message], tools: Any = None, **settings: Any) -> str:
        return " ".join(message.content for message in messages)

    def close(self) -> None:
        pass


class Plain(Session):
    """A session that only runs graphs."""

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None, part: str = "model") -> Any:
        return inputs

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_k": -1},
    ],
)
def test_a_generation_out_of_its_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} is .*; it must be"):
        Generation(**wrong)


def test_generate_joins_the_stream_and_takes_fields_of_generation() -> None:
    with Parrot() as session:
        assert text_session(session).generate("one two three") == "onetwothree"
        assert text_session(session).generate("one two three", max_new_tokens=2) == "onetwo"


def test_the_error_for_a_prompt_without_room_for_an_answer_names_max_length() -> None:
    with pytest.raises(NoRoom, match="takes 4 tokens, but there is room for 4") as caught:
        Parrot().stream("a b c d")
    assert "--max-length" in (caught.value.cure or "") and "8 tokens" in (caught.value.cure or "")
    with pytest.raises(UsageError, match="the prompt is empty"):
        Parrot().stream(" ")


def test_the_error_does_not_name_max_length_if_the_context_is_full() -> None:
    session = Parrot()
    session.max_length = session.context_length
    with pytest.raises(NoRoom) as caught:
        session.stream("a b c d e f g h")
    assert "--max-length" not in (caught.value.cure or "")


def test_a_session_that_only_runs_graphs_is_not_a_text_session() -> None:
    with pytest.raises(ModelError, match="the model does not generate text"):
        text_session(Plain())


def test_the_decode_rate_does_not_count_the_first_token() -> None:
    timing = Timing(prompt_tokens=10, new_tokens=5, prompt_seconds=2.0, decode_seconds=2.0)
    assert (timing.prompt_rate, timing.decode_rate) == (5.0, 2.0)
    assert Timing(10, 1, 0.0, 0.0).decode_rate == Timing(10, 1, 0.0, 0.0).prompt_rate == 0.0


def test_a_stopwatch_times_prompt_and_answer_separately(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 12.0, 12.5, 13.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    watch = Stopwatch(prompt_tokens=7)
    assert watch.count() == Timing(7, 1, 2.0, 0.0)
    watch.count()
    assert watch.count() == Timing(7, 3, 2.0, 1.0)


def test_sessions_and_ports_are_imported_without_numpy() -> None:
    code = (
        "import sys; from drupe_decoding import DecoderPorts, Generation, NoRoom, TextSession, Timing; "
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "onnx_ir", "onnxruntime"} & set(loaded)
