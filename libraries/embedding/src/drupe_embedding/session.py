"""EmbeddingSession: an open model that gives embeddings of texts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from drupe.api import ModelError, Session

if TYPE_CHECKING:
    from numpy.typing import NDArray


class EmbeddingSession(Session):
    """A session of a model whose task is feature-extraction. A runtime's session subclasses it."""

    @abstractmethod
    def embed(self, texts: Sequence[str], prompt: str | None = None) -> NDArray[Any]:
        """The embedding of each text: float32 [texts, dimension].

        prompt: the name of one of the model's prompts, which is put before each text; None for the model's default
        prompt. Texts are cut to the most tokens that the model reads. Raises UsageError for a prompt that the model
        does not have, ModelError for a model that pools no tokens.
        """


def embedding_session(session: Session) -> EmbeddingSession:
    """The session, if it gives embeddings. Raises ModelError for a session of another task."""
    if not isinstance(session, EmbeddingSession):
        raise ModelError(
            "the model gives no embeddings of texts",
            cure="open a package of the task feature-extraction; drupe inspect PACKAGE shows the task",
        )
    return session
