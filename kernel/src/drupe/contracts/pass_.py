"""Pass: one step that makes a model of a model, and says beforehand what it needs and what it gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from drupe.contracts.context import Context
from drupe.values.model import Form, Model


class PassConfig(BaseModel):
    """A pass's configuration: frozen, complete with defaults, closed to unknown keys.

    version is raised when a key changes its meaning.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    version: ClassVar[int] = 1


class Pass(ABC):
    """One step from model to model.

    A complete pass, that notes in a text model who passed it on::

        class SignConfig(PassConfig):
            name: str = "anonymous"

        class Sign(Pass):
            name = "sign"
            summary = "adds a signature"
            revision = 1
            Config = SignConfig
            requires = Form("text", {"signed": "no"})
            ensures = Form("text", {"signed": "yes"})

            def run(self, model, config, context):
                return model.but(payload=model.payload + config.name)
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    revision: ClassVar[int] = 1
    """Raised when the same input and configuration give another result; the cache keys on it."""
    Config: ClassVar[type[PassConfig]] = PassConfig
    requires: ClassVar[Form]
    """Of every part that it goes over. A fact that a part does not state has the default that the fact declares."""
    ensures: ClassVar[Form]
    whole: ClassVar[bool] = False
    """Whether it is given a model of several parts whole, not part by part."""
    costly: ClassVar[bool] = False
    """Whether its own work is worth keeping in the cache; a pass that only rewrites is not."""
    grows_with: ClassVar[str] = ""
    """In words, what the time of a costly pass depends on beside the model's size ("the amount of text")."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions whose version decides the result."""

    def refuse(self, model: Model) -> None:  # noqa: B027 - most passes have nothing to say
        """Raise the error of a model that this pass cannot do, as far as what is cheap to read tells."""

    def refuse_whole(self, model: Model, config: Any, context: Context) -> None:  # noqa: B027 - most have nothing to say
        """Raise the error of a model in which there is nothing to do for this pass, in whichever of its parts.

        Asked once before `run` and `preview`, which see one part at a time. The model must not be changed.
        """

    def preview(self, model: Model, config: Any, context: Context) -> Model:
        """What `run` makes, as far as that is known without its work: names, shapes and schemes.

        For `--plan`; and before a plan that has a costly pass is run, so that it raises what `run` would, where that
        shows without the work. Behind a costly pass that does not have its own, no other is asked.
        """
        return model if self.costly else self.run(model, config, context)

    def describe(self, model: Model) -> Mapping[str, Any]:
        """What this pass knows of a model, by labels; `drupe inspect` shows it for a plan's first pass.

        A value may be a record: a mapping with a `text` for a person; or a list of such records, with a `label` each.
        """
        return {}

    @abstractmethod
    def run(self, model: Model, config: Any, context: Context) -> Model:
        """Make the new model. The payload is this pass's own copy and may be changed in place.

        The engine merges the facts of `ensures` into what comes back. Raises ModelError for a model it cannot do.
        """
