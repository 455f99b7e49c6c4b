"""The kind `hf`: a checkpoint as transformers saves it."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from drupe.api import Context, Estimate, Model, ModelError, ModelKind, OutputError
from drupe_huggingface.checkpoint import Checkpoint

CHUNK = 8 << 20


class HfKind(ModelKind):
    """A folder with config.json, safetensors files and a tokenizer; the payload is a `Checkpoint`."""

    name = "hf"

    def load(self, model: Model) -> Model:
        return model if model.payload is not None else model.but(payload=Checkpoint.open(model.location))

    def save(self, model: Model, folder: Path, context: Context) -> None:
        """Copy the checkpoint's files, those that links lead to as well, in chunks."""
        sources = _files(model.location)
        with context.progress.task("copy the checkpoint", sum(path.stat().st_size for path in sources)):
            for source in sources:
                _copy(source, folder / source.relative_to(model.location), context)

    def fingerprint(self, model: Model) -> str:
        """Of the small files the content; of the weights the header (names, shapes, places), the size and the time of change."""
        digest = hashlib.sha256()
        for path in _files(model.location):
            digest.update(path.relative_to(model.location).as_posix().encode() + b"\0")
            if path.suffix == ".safetensors":
                status = path.stat()
                digest.update(f"{status.st_size} {status.st_mtime_ns}\0".encode() + _header(path))
            else:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def describe(self, model: Model) -> Mapping[str, str]:
        checkpoint: Checkpoint = self.load(model).payload
        config = checkpoint.config
        heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
        kv_heads = config.get("num_key_value_heads") or heads
        head_dim = config.get("head_dim") or (hidden // heads if hidden and heads else None)
        tied = config.get("tie_word_embeddings")
        facts = {
            "architecture": ", ".join(checkpoint.architectures) or checkpoint.model_type,
            "model type": checkpoint.model_type,
            "layers": config.get("num_hidden_layers"),
            "hidden size": hidden,
            "attention heads": heads and f"{heads}, {kv_heads} for keys and values, of {head_dim}",
            "vocabulary": config.get("vocab_size"),
            "context length": config.get("max_position_embeddings"),
            "tied embeddings": None if tied is None else "yes" if tied else "no",
            **self._weights(checkpoint),
        }
        return {label: str(value) for label, value in facts.items() if value is not None}

    def estimate(self, model: Model, context: Context) -> Estimate:
        size = sum(path.stat().st_size for path in _files(model.location))
        return Estimate(output_bytes=size, read_bytes=size, peak_bytes=CHUNK, work=0)

    @staticmethod
    def _weights(checkpoint: Checkpoint) -> Mapping[str, str]:
        """Parameters, bytes and element types, from the headers of the safetensors files."""
        try:
            tensors = checkpoint.tensors()
        except ModelError as error:
            return {"weights": error.what}
        elements: Counter[str] = Counter()
        size = 0
        for tensor in tensors.values():
            count = 1
            for length in tensor.shape:
                count *= length
            elements[tensor.dtype.name.lower()] += count
            size += int(count * tensor.dtype.itemsize)
        return {
            "parameters": f"{sum(elements.values()):,}",
            "weights": f"{size:,} bytes of {', '.join(name for name, _ in elements.most_common())}",
        }


def _files(folder: Path) -> list[Path]:
    """The checkpoint's files: those of the folder and of folders in it, hidden ones left out."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return file.read(min(length, 100_000_000))


def _copy(source: Path, destination: Path, context: Context) -> None:
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as reader, destination.open("wb") as writer:
            while chunk := reader.read(CHUNK):
                context.stop_if_cancelled()
                writer.write(chunk)
                context.progress.advance(len(chunk))
        shutil.copystat(source, destination)
    except OSError as error:
        raise OutputError(f"cannot copy {source.name}: {error.strerror}", where=destination) from error
