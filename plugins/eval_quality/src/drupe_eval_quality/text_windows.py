"""Windows: pieces of text, each in its own context, and the reference's logits for them."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from drupe.api import Context, Model, Record
from drupe_decoding import Decoder
from drupe_files import ACTIVATIONS, cache_folder, key_of, leave_note, touch
from drupe_layerwise import LayerByLayer
from drupe_onnx import OnnxPackage
from drupe_onnx.package_fingerprint import fingerprint_of

LARGEST_NOTE = 64 << 20
"""Bytes of activations that are kept for the next comparison; those of 256 tokens are some megabytes."""


class Window(Record):
    """Input tokens, and the targets: the tokens that follow the last len(targets) inputs."""

    inputs: Sequence[int]
    targets: Sequence[int]


class Chunk(Record):
    """Inputs of a window from number `start` on. rows: the reference's logits for them, [tokens, vocabulary]."""

    window: Window
    start: int
    stop: int
    rows: NDArray[Any] | None = None

    @property
    def inputs(self) -> Sequence[int]:
        return self.window.inputs[self.start : self.stop]

    @property
    def targets(self) -> Sequence[int]:
        """The tokens that follow the last inputs."""
        unscored = len(self.window.inputs) - len(self.window.targets)
        return self.window.targets[max(0, self.start - unscored) : max(0, self.stop - unscored)]


def windows_of(tokens: Sequence[int], beginning: Sequence[int], size: int) -> list[Window]:
    """Windows of `size` targets. Each starts with the tokenizer's beginning of a text, or else the token before it."""
    first = 0 if beginning else 1
    windows = []
    for start in range(first, len(tokens), size):
        targets = tokens[start : start + size]
        lead = beginning or tokens[start - 1 : start]
        windows.append(Window([*lead, *targets[:-1]], targets))
    return windows


def alone(windows: Sequence[Window], positions: int) -> Iterator[Chunk]:
    """Chunks of at most so many positions, without a reference."""
    for window in windows:
        for start in range(0, len(window.inputs), positions):
            yield Chunk(window, start, min(start + positions, len(window.inputs)))


def with_package(windows: Sequence[Window], positions: int, reference: Decoder) -> Iterator[Chunk]:
    """Chunks with the logits of a package as reference."""
    for chunk in alone(windows, positions):
        if not chunk.start:
            reference.reset()
        yield Chunk(chunk.window, chunk.start, chunk.stop, reference.logits(chunk.inputs))


def with_graph(windows: Sequence[Window], positions: int, reference: LayerByLayer) -> Iterator[Chunk]:
    """Chunks with the logits of a graph as reference; the graph has been run up to its head."""
    for logits in reference.logits(positions):
        yield Chunk(windows[logits.sequence], logits.start, logits.start + len(logits.rows), logits.rows)


def run_to_head(model: Model, windows: Sequence[Window], key: str, context: Context) -> LayerByLayer:
    """Run a graph that was not written over all windows, with one layer's weights at a time, and stop at its head.

    What comes of it is small, and is kept in the cache: the same source is compared with again on the same text.
    key: see `key_of_logits`.
    """
    note = cache_folder() / ACTIVATIONS / f"{key}.npz"
    layers = LayerByLayer(model.payload.component, [window.inputs for window in windows], context)
    try:
        if not _start_from(note, layers):
            *before, _ = layers.segments
            with context.progress.task("running the source", len(before), "layer") as progress:
                for segment in before:
                    layers.advance(segment)
                    progress.advance(1)
            _leave(note, layers, str(model.location.absolute()))
    except BaseException:
        layers.close()
        raise
    return layers


def key_of_logits(package: OnnxPackage, windows: Sequence[Window], context: Context) -> str:
    """What decides on the logits of a graph: its content, these windows, and the runtime that computes."""
    decided = {
        "graph": fingerprint_of(package, thorough=True),
        "inputs": [list(window.inputs) for window in windows],
        "runtime": (context.target.provider, context.target.runtime_version),
        "layerwise": metadata.version("drupe-layerwise"),
    }
    return key_of(decided)


def _start_from(note: Path, layers: LayerByLayer) -> bool:
    """Take the values of a note; False where there is none, or it is damaged."""
    import numpy as np

    try:
        with np.load(note) as values:
            layers.start_at_head(values)
        touch(note)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        with contextlib.suppress(OSError):  # a cache that is read-only
            note.unlink(missing_ok=True)
        return False
    return True


def _leave(note: Path, layers: LayerByLayer, source: str) -> None:
    """Keep what a source gives to its head, unless it is large; the archive's comment says which source that is."""
    import numpy as np

    values = layers.values_at_head()
    if sum(each.nbytes for each in values.values()) <= LARGEST_NOTE:
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **values)
        with zipfile.ZipFile(content, "a") as archive:
            archive.comment = source.encode("utf-8", "surrogateescape")
        leave_note(note, content.getvalue())
