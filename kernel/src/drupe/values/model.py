"""Model: an immutable handle on a model, its task, and the facts of its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from drupe.errors import PlanError
from drupe.values.record import Record, field, replace
from drupe.values.typed import Typed

ONLY_PART = "model"
"""What the part of a model with one part is called."""


class Fact(Typed):
    """A word of the vocabulary that passes require and ensure.

    values: those it may have; empty for any. default: what holds of a part that does not state the fact; None where
    nothing does.
    """

    name: str
    values: tuple[str, ...]
    summary: str
    default: str | None = None


class Form(Typed):
    """What a chain of passes is checked by: a model's kind, and facts of its parts.

    facts: for each fact its value; where a pass requires it, a tuple of values stands for any of them.
    """

    kind: str
    facts: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)

    @property
    def stated(self) -> dict[str, str]:
        """The facts that have one value, which is what a pass ensures."""
        return {fact: value for fact, value in self.facts.items() if isinstance(value, str)}


class Notice(Typed):
    """What a user should know of a model that is no reason to refuse it.

    about: what it is about, in a word or two ("tokenizer", "chat template", "config.json").
    handling: what is done about it, in a word or two ("rewritten", "left out", "has no effect").
    what: one sentence. cure: what the user can do; empty where nothing is needed.
    """

    about: str
    handling: str
    what: str
    cure: str = ""


class Model(Typed):
    """A model as passes hand it on.

    kind: an open string ("hf", "onnx", ...) that names a registered ModelKind.
    location: the folder or file it lives in.
    parts: the facts of each part, by role ("decoder", "vision", ...); a model of one part calls it "model".
    payload: the model in memory, for a kind that is cheap to hold (a graph without its weights).
    task: what it is for, in the words of Hugging Face ("text-generation"); None where nobody knows.
    notices: what a user should know of it, in the order in which it was found. Passes hand them on.
    """

    kind: str
    location: Path
    parts: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: {ONLY_PART: {}})
    payload: Any = None
    task: str | None = None
    notices: tuple[Notice, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        frozen = {role: MappingProxyType(dict(facts)) for role, facts in self.parts.items()}
        self._assign("parts", MappingProxyType(frozen))

    @classmethod
    def single(
        cls, kind: str, location: Path, facts: Mapping[str, str], payload: Any = None, task: str | None = None
    ) -> Model:
        """A model of one part, of which `facts` hold."""
        return cls(kind, location, {ONLY_PART: facts}, payload, task)

    @property
    def facts(self) -> Mapping[str, str]:
        """The facts of the only part. Raises PlanError for a model of several."""
        if len(self.parts) != 1:
            raise PlanError(
                f"the model has the parts {', '.join(self.parts)}, and one was expected",
                where=self.location,
                cure="name the part",
            )
        return next(iter(self.parts.values()))

    def but(self, *, facts: Mapping[str, str] | None = None, **changes: Any) -> Model:
        """This model with some fields changed; `facts` are merged into those of every part."""
        parts = changes.pop("parts", self.parts)
        return replace(self, parts={role: {**held, **(facts or {})} for role, held in parts.items()}, **changes)

    def noticed(self, *notices: Notice) -> Model:
        """This model with further notices; one that it has already is not repeated."""
        return replace(self, notices=tuple(dict.fromkeys((*self.notices, *notices))))

    def note(self) -> dict[str, Any]:
        """Kind, task and parts, as JSON has them; see `from_note`."""
        return {"kind": self.kind, "task": self.task, "parts": {role: dict(held) for role, held in self.parts.items()}}

    @classmethod
    def from_note(cls, note: Mapping[str, Any], location: Path) -> Model:
        """The model that `note` was made of, which now lies at `location`."""
        notices = tuple(Notice(**each) for each in note.get("notices", ()))
        return cls(note["kind"], location, note["parts"], task=note["task"], notices=notices)


class StoredWeights(Record):
    """Weights that are stored alike.

    role: what they are; scheme: how they are stored; blocks: in which layers; rows: of a matrix that is stored in
    parts, "" for whole ones.
    """

    role: str
    scheme: str
    blocks: str
    bytes: int
    rows: str = ""


class Estimate(Record):
    """What a model will take when it is saved.

    output_bytes: size on disk.
    read_bytes: what has to be read for it.
    weights_held_bytes: the most bytes of weights in memory at once.
    work: parameters that go through a computation, for a guess at the time.
    weights: how they are stored, where the kind tells.
    """

    output_bytes: int
    read_bytes: int
    weights_held_bytes: int
    work: int
    weights: Sequence[StoredWeights] = ()
