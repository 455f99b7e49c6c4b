"""The kind `hf`: a checkpoint as transformers saves it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import Context, Estimate, Model, ModelError, ModelKind, OutputError, file_digest
from drupe_huggingface.checkpoint import GGUF, Checkpoint
from drupe_huggingface.tokenizer import CARRIED, CARRIED_PATTERNS
from drupe_onnx import unreadable

PARTS = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "*.tiktoken", *CARRIED_PATTERNS)
CHUNK = 8 << 20
GGUF_HEADER = 16 << 20  # bytes that hold it, whatever the vocabulary
SAMPLES, SAMPLE = 64, 4 << 10  # of a weight file, for a fingerprint that is not thorough


class HfKind(ModelKind):
    """A folder with config.json, safetensors files and a tokenizer; the payload is a `Checkpoint`."""

    name = "hf"

    def load(self, model: Model) -> Model:
        return model if model.payload is not None else model.but(payload=Checkpoint.open(model.location))

    def save(self, model: Model, folder: Path, context: Context) -> Mapping[str, str]:
        """Copy the checkpoint's files, those that links lead to as well, in chunks."""
        _complete(model)
        sources = {_name(path, model.location): path for path in _files(model.location)}
        with context.progress.task("copying", sum(path.stat().st_size for path in sources.values())):
            return {name: _copy(source, folder / name, context) for name, source in sources.items()}

    def fingerprint(self, model: Model, thorough: bool = True) -> str:
        """Of every byte; without `thorough`, of the weights only the headers and some of the bytes."""
        _complete(model)
        digest = hashlib.sha256()
        for path in _files(model.location):
            sampled = path.suffix in (".safetensors", GGUF) and not thorough
            try:
                content = _sampled_digest(path) if sampled else file_digest(path)
            except OSError as error:
                raise unreadable(path, error) from error
            digest.update(f"{_name(path, model.location)}\0{content}\0".encode())
        return digest.hexdigest()

    def describe(self, model: Model) -> Mapping[str, Any]:
        checkpoint: Checkpoint = self.load(model).payload
        config = checkpoint.config
        heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
        facts = {
            "architecture": ", ".join(checkpoint.architectures) or checkpoint.model_type,
            "model type": checkpoint.model_type,
            "layers": config.get("num_hidden_layers"),
            "hidden size": hidden,
            "attention heads": heads,
            "key and value heads": config.get("num_key_value_heads") or heads,
            "head size": config.get("head_dim") or _quotient(hidden, heads),
            "vocabulary": config.get("vocab_size"),
            "context length": config.get("max_position_embeddings"),
            "tied embeddings": config.get("tie_word_embeddings"),
            **_weights(checkpoint),
        }
        return {label: value for label, value in facts.items() if value is not None}

    def size(self, model: Model) -> int | None:
        """Bytes of the checkpoint's files, those of a hub's that are not here yet included."""
        here = sum(path.stat().st_size for path in _files(model.location))
        snapshot = self.load(model).payload.snapshot
        if snapshot is None or snapshot.has_weights():
            return here
        listed = snapshot.known()
        return here + listed.weight_bytes if listed else None

    def estimate(self, model: Model, context: Context) -> Estimate:
        _complete(model)
        size = sum(path.stat().st_size for path in _files(model.location))
        return Estimate(output_bytes=size, read_bytes=size, weights_held_bytes=CHUNK, work=0)


def _quotient(dividend: Any, divisor: Any) -> int | None:
    """Of two values as config.json has them, which may be anything."""
    return dividend // divisor if isinstance(dividend, int) and isinstance(divisor, int) and divisor else None


def _complete(model: Model) -> None:
    """Have the weights here, of a hub's model too."""
    if model.payload is not None:
        model.payload.fetch_weights()


def _weights(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Parameters, bytes and element types; of weights that cannot be read nothing, which refusing them tells.

    Nothing is downloaded for it: of weights on the hub there is what one request tells.
    """
    snapshot = checkpoint.snapshot
    if snapshot is not None and not snapshot.has_weights():
        listed = snapshot.known()
        known = {"parameters": listed.parameters, "weight bytes": listed.weight_bytes or None} if listed else {}
        return {**known, "weights": "on the hub, not downloaded"}
    try:
        found, packing = checkpoint.summary(), checkpoint.packing
    except ModelError:
        return {}
    if found is None:
        return {}
    types = [name for name, _ in found.elements.most_common()]
    facts = {"parameters": found.elements.total(), "weight bytes": found.bytes, "element types": types}
    return {**facts, "quantized": str(packing)} if packing else facts


def _files(folder: Path) -> list[Path]:
    """The checkpoint's files. What else people keep in its folder (optimizer states, other formats) is none of it.

    Of a GGUF file, the file itself and the tokenizer beside it.
    """
    if folder.is_file():
        beside = (folder.parent / name for name in CARRIED)
        return [folder, *(path for path in beside if path.is_file())]
    found = (path for pattern in PARTS for path in folder.glob(pattern))
    return sorted({path for path in found if path.is_file() and not path.name.startswith(".")})


def _name(path: Path, location: Path) -> str:
    """A file's name within a checkpoint's folder, or beside a checkpoint that is a file."""
    return path.relative_to(location.parent if location.is_file() else location).as_posix()


def _sampled_digest(path: Path) -> str:
    """SHA-256 of a weight file's size, header (names, types, shapes, places), and samples at equal distances."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        start = file.read(8)
        header = GGUF_HEADER if path.suffix == GGUF else int.from_bytes(start, "little")
        digest.update(start + file.read(min(header, size)))
        for number in range(SAMPLES):
            file.seek(size * number // SAMPLES)
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def _copy(source: Path, destination: Path, context: Context) -> str:
    """Copy a file and its times; returns its SHA-256."""
    digest = hashlib.sha256()
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as reader, destination.open("wb") as writer:
            while chunk := reader.read(CHUNK):
                context.stop_if_cancelled()
                writer.write(chunk)
                digest.update(chunk)
                context.progress.advance(len(chunk))
        shutil.copystat(source, destination)
    except OSError as error:
        raise OutputError(f"cannot copy {source.name}: {error.strerror}", where=destination) from error
    return digest.hexdigest()
