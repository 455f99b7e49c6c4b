"""OrtEmbeddingSession: a model of the task feature-extraction, open in onnxruntime."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe_embedding import DESCRIPTION_KEY, EmbeddingDescription, EmbeddingSession, description_from
from drupe_onnxruntime.plain.graphs import Graphs
from drupe_onnxruntime.plain.session import OrtSession

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from drupe_tokenization import Tokenizer


class OrtEmbeddingSession(OrtSession, EmbeddingSession):
    """Gives embeddings of texts, as the graph's metadata describes them."""

    def __init__(self, graphs: Graphs, threads: int | None = None) -> None:
        """graphs: those of a model of one part."""
        super().__init__(graphs, threads)
        (part,) = graphs.files
        self._folder: Path = graphs.files[part].parent
        text = graphs[part].get_modelmeta().custom_metadata_map.get(DESCRIPTION_KEY)
        self._description = EmbeddingDescription() if text is None else description_from(text)

    def embed(self, texts: Sequence[str], prompt: str | None = None) -> NDArray[Any]:
        from drupe_embedding import embed_texts

        return embed_texts(self.run, self._tokenizer, self._description, texts, prompt)

    @functools.cached_property
    def _tokenizer(self) -> Tokenizer:
        from drupe_tokenization import Tokenizer

        return Tokenizer(self._folder)
