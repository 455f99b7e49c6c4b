"""Pass: one step that makes a model of a model, and says beforehand what it needs and what it gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from drupe.context import Context
    from drupe.model import Model


class PassConfig(BaseModel):
    """A pass's configuration: frozen, complete with defaults, closed to unknown keys.

    version is raised when a key changes its meaning.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: ClassVar[int] = 1


@dataclass(frozen=True)
class Shape:
    """What a chain of passes is checked by: a model's kind and facts."""

    kind: str
    facts: Mapping[str, str] = field(default_factory=dict)


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
            requires = Shape("text", {"signed": "no"})
            ensures = Shape("text", {"signed": "yes"})

            def run(self, model, config, context):
                return model.but(payload=model.payload + config.name)
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    revision: ClassVar[int] = 1
    """Raised when the same input and configuration give another result; the cache keys on it."""
    Config: ClassVar[type[PassConfig]] = PassConfig
    requires: ClassVar[Shape]
    """A fact that the model does not state is taken to hold."""
    ensures: ClassVar[Shape]
    costly: ClassVar[bool] = False
    """Whether its own work is worth keeping in the cache; a pass that only rewrites is not."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions whose version decides the result."""

    def refuse(self, model: Model) -> None:  # noqa: B027 - most passes have nothing to say
        """Raise the error of a model that this pass cannot do, as far as what is cheap to read tells."""

    def preview(self, model: Model, config: Any, context: Context) -> Model:
        """What `run` makes, as far as that is known without its work: names, shapes and schemes.

        For `--plan`; and before a plan that has a costly pass is run, so that it raises what `run` would, where that
        shows without the work. Behind a costly pass that does not have its own, no other is asked.
        """
        return model if self.costly else self.run(model, config, context)

    @abstractmethod
    def run(self, model: Model, config: Any, context: Context) -> Model:
        """Make the new model. The payload is this pass's own copy and may be changed in place.

        The engine merges the facts of `ensures` into what comes back. Raises ModelError for a model it cannot do.
        """
