"""The runtime `llama-cpp-python`: GGUF files in llama.cpp."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import CheckFailed, Model, Runtime, Target, usable_threads
from drupe_rivals.rows import RowsSession, Step
from drupe_rivals.wheels import load, refuse_elsewhere, refuse_missing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DISTRIBUTION = "llama-cpp-python"
INSTALL = "pip install llama-cpp-python"
SUFFIX = ".gguf"
ERROR = 4
"""llama.cpp's level of messages about errors."""


class LlamaCpp(Runtime):
    """Opens GGUF files on the processor, with llama.cpp's own settings but for threads and room."""

    name = "llama-cpp-python"
    distributions = (DISTRIBUTION,)

    def refusal(self, model: Model, target: Target) -> str | None:
        if model.kind != "hf" or model.location.suffix != SUFFIX:
            return "llama.cpp runs GGUF files"
        refuse_elsewhere("llama.cpp", target)
        refuse_missing(self.distributions, INSTALL)
        return None

    def open(self, model: Model, target: Target, *, max_length: int | None = None, threads: int = 0) -> RowsSession:
        refuse_missing(self.distributions, INSTALL)
        library = load("llama_cpp", DISTRIBUTION, INSTALL)
        return LlamaCppSession(library, model.location, max_length, threads or usable_threads())


class LlamaCppSession(RowsSession):
    """A GGUF file that is open in llama.cpp. A context is made for the rows and the room that are needed."""

    def __init__(self, library: Any, path: Path, max_length: int | None, threads: int) -> None:
        self._library = library
        self._said = _Errors(library)
        self._context: _Context | None = None
        self.threads = threads
        library.llama_backend_init()
        settings = library.llama_model_default_params()
        settings.n_gpu_layers = 0
        self._model = library.llama_model_load_from_file(str(path).encode(), settings)
        if not self._model:
            self._said.close()
            raise CheckFailed(f"llama.cpp cannot open the file: {self._said}", where=path)
        self.vocabulary: int = library.llama_vocab_n_tokens(library.llama_model_get_vocab(self._model))
        self.context_length = self.max_length = int(library.llama_model_n_ctx_train(self._model))
        if max_length is not None:
            self.max_length = min(max_length, self.context_length)
            self.begin(1, self.max_length)  # this is a part of the time that loading takes, as in other runtimes

    def begin(self, rows: int, room: int) -> Step:
        if self._context is None or not self._context.fits(rows, room):
            self._free_context()
            self._context = _Context(self._library, self._model, rows, room, self.threads or 1, self.vocabulary)
        self._context.forget()
        return self._context.step

    def _free_context(self) -> None:
        if self._context is not None:
            self._context.close()
        self._context = None

    def close(self) -> None:
        self._free_context()
        self._library.llama_model_free(self._model)
        self._said.close()


class _Context:
    """llama.cpp's state for rows of tokens: each row is a sequence."""

    def __init__(self, library: Any, model: Any, rows: int, room: int, threads: int, vocabulary: int) -> None:
        self._library, self._rows, self._room, self._vocabulary = library, rows, room, vocabulary
        settings = library.llama_context_default_params()
        settings.n_ctx = settings.n_batch = rows * room
        settings.n_seq_max = rows
        settings.n_threads = settings.n_threads_batch = threads
        self._context = library.llama_init_from_model(model, settings)
        if not self._context:
            raise CheckFailed(f"llama.cpp has no room for {rows} rows of {room} tokens", cure="smaller cases")
        self._batch = library.llama_batch_init(rows * room, 0, 1)
        self._read = 0

    def fits(self, rows: int, room: int) -> bool:
        return rows == self._rows and room <= self._room

    def forget(self) -> None:
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)
        self._read = 0

    def step(self, tokens: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """Read further tokens of each row; the logits after the last of them."""
        import numpy as np

        rows, length = tokens.shape
        batch = self._batch
        batch.n_tokens = rows * length
        for at, token in enumerate(tokens.ravel().tolist()):
            row, place = divmod(at, length)
            batch.token[at] = token
            batch.pos[at] = self._read + place
            batch.n_seq_id[at] = 1
            batch.seq_id[at][0] = row
            batch.logits[at] = place == length - 1
        if status := self._library.llama_decode(self._context, batch):
            raise CheckFailed(f"llama.cpp cannot run the model (status {status})")
        self._read += length
        logits = [self._library.llama_get_logits_ith(self._context, (row + 1) * length - 1) for row in range(rows)]
        return np.stack([np.ctypeslib.as_array(each, (self._vocabulary,)) for each in logits])

    def close(self) -> None:
        self._library.llama_batch_free(self._batch)
        self._library.llama_free(self._context)


class _Errors:
    """What llama.cpp says of errors; the rest of its messages is not kept."""

    def __init__(self, library: Any) -> None:
        self._texts: list[str] = []
        self._library = library
        self._callback = library.llama_log_callback(self._take)
        library.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _take(self, level: int, text: bytes, data: Any) -> None:
        if level == ERROR:
            self._texts.append(text.decode("utf-8", "replace").strip())

    def __str__(self) -> str:
        return self._texts[0] if self._texts else "it does not say why"

    def close(self) -> None:
        """llama.cpp must not call what is freed."""
        self._library.llama_log_set(self._library.llama_log_callback(0), ctypes.c_void_p(0))
