"""The kind `hf`: a checkpoint as transformers saves it."""

from __future__ import annotations

import hashlib
import reprlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import Context, Estimate, Model, ModelError, ModelKind, OutputError
from drupe_checkpoints.adapters.reference import FACT, adapters_of
from drupe_checkpoints.adapters.switched import switched_of
from drupe_checkpoints.checkpoint import GGUF, Checkpoint
from drupe_checkpoints.configuration import Configuration
from drupe_checkpoints.context_length import context_of
from drupe_checkpoints.kept import BESIDE, kept_location, with_adapters_in, write_elsewhere
from drupe_checkpoints.opening import checkpoint_of, open_checkpoint
from drupe_checkpoints.sentence_transformers import sentence_files, sentence_modules
from drupe_checkpoints.summary import shards_of
from drupe_checkpoints.tokenizer.carried_files import CARRIED, CARRIED_PATTERNS
from drupe_files import file_digest, quick_digest, stays_inside, unreadable
from drupe_onnx.size_keys import SIZE_KEYS

PARTS = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "*.tiktoken", *CARRIED_PATTERNS)
WEIGHT_FILES = (".safetensors", ".safetensors.index.json", GGUF)
CHUNK = 8 << 20
GGUF_HEADER = 16 << 20  # bytes that are enough for a header with any vocabulary


class HfKind(ModelKind):
    """A folder with config.json, safetensors files and a tokenizer; the payload is a `Checkpoint`."""

    name = "hf"

    def load(self, model: Model) -> Model:
        return model.but(payload=checkpoint_of(model))

    def payload_problem(self, model: Model) -> str | None:
        if model.payload is None or isinstance(model.payload, Checkpoint):
            return None
        return f"has the payload {reprlib.repr(model.payload)}, which is not a Checkpoint"

    def save(self, model: Model, folder: Path, context: Context) -> Mapping[str, str]:
        """Copy the checkpoint's files in chunks. Links are followed.

        Adapters that are merged are in the weights; those beside the checkpoint have folders of their own.
        """
        _complete(model)
        sources = {_name(path, model.location): path for path in _files(model.location)}
        beside = _beside(model)
        if adapters_of(model):
            merged = self._save_merged(model, folder, sources, context)
            return {**merged, **{name: _copy(source, folder / name, context) for name, source in beside.items()}}
        sources |= beside
        with context.progress.task("copying", sum(path.stat().st_size for path in sources.values())):
            return {name: _copy(source, folder / name, context) for name, source in sources.items()}

    def store(self, model: Model, folder: Path, context: Context) -> None:
        """Keep the checkpoint; one that is not in the scratch folder stays where it is, and is referred to."""
        if adapters_of(model) or model.location.absolute().is_relative_to(context.scratch.absolute()):
            self.save(model, folder, context)
            return
        _complete(model)
        write_elsewhere(model.location, _files(model.location), folder)
        for name, source in _beside(model).items():
            _copy(source, folder / name, context)

    def restore(self, model: Model, moved: tuple[Path, Path] | None = None) -> Model:
        folder = model.location
        parts = {role: {name: held[name] for name in held if name != FACT} for role, held in model.parts.items()}
        here = model.but(location=kept_location(folder, moved), parts=parts)
        return self.load(with_adapters_in(here, folder))

    def _save_merged(
        self, model: Model, folder: Path, sources: Mapping[str, Path], context: Context
    ) -> Mapping[str, str]:
        from drupe_checkpoints.adapters.writing import configuration_of, write_weights

        checkpoint: Checkpoint = self.load(model).payload
        beside = {name: path for name, path in sources.items() if "/" in name or not name.endswith(WEIGHT_FILES)}
        digests = {name: _copy(path, folder / name, context) for name, path in beside.items()}
        return {**digests, **configuration_of(checkpoint, folder), **write_weights(checkpoint, folder, context)}

    def fingerprint(self, model: Model, thorough: bool = True) -> str:
        """A digest of every byte. Without `thorough`, only headers and samples of large weight files are read."""
        _complete(model)
        digest = hashlib.sha256()
        for path in _files(model.location):
            try:
                content = file_digest(path) if thorough else quick_digest(path, _header_bytes(path))
            except OSError as error:
                raise unreadable(path, error) from error
            digest.update(f"{_name(path, model.location)}\0{content}\0".encode())
        for adapter in adapters_of(model):
            for path in adapter.files:
                try:
                    digest.update(f"adapter {adapter.weight!r}\0{file_digest(path)}\0".encode())
                except OSError as error:
                    raise unreadable(path, error) from error
        for beside in switched_of(model):
            for path in beside.files:
                try:
                    digest.update(f"switched {beside.name}\0{file_digest(path)}\0".encode())
                except OSError as error:
                    raise unreadable(path, error) from error
        return digest.hexdigest()

    def describe(self, model: Model) -> Mapping[str, Any]:
        checkpoint: Checkpoint = self.load(model).payload
        config = checkpoint.config
        sizes = {field: next(filter(None, map(config.get, keys)), None) for field, keys in SIZE_KEYS.items()}
        heads, hidden = sizes["heads"], sizes["hidden_size"]
        latent = "kv_lora_rank" in config  # such heads have sizes of several kinds, which the composition shows
        facts = {
            "architecture": ", ".join(checkpoint.architectures) or checkpoint.model_type,
            "text part of": _whole(checkpoint.whole),
            "model type": checkpoint.model_type,
            "layers": sizes["layers"],
            "hidden size": hidden,
            "attention heads": heads,
            "key and value heads": sizes["kv_heads"] or heads,
            "head size": None if latent else sizes["head_dim"] or _quotient(hidden, heads),
            "vocabulary": sizes["vocab_size"],
            "context length": _context_length(config) or sizes["context_length"],
            "tied embeddings": config.get("tie_word_embeddings"),
            "adapters": [str(each) for each in adapters_of(model)] or None,
            "switched adapters": [str(each) for each in switched_of(model)] or None,
            **_pooling(checkpoint),
            **_weights(checkpoint),
        }
        return {label: value for label, value in facts.items() if value is not None}

    def here(self, model: Model) -> bool:
        snapshot = self.load(model).payload.snapshot
        return snapshot is None or snapshot.has_weights()

    def size(self, model: Model) -> int | None:
        """Bytes of the checkpoint's files, including a hub's files that are not downloaded yet."""
        here = sum(path.stat().st_size for path in _all_files(model))
        snapshot = self.load(model).payload.snapshot
        if snapshot is None or snapshot.has_weights():
            return here
        listed = snapshot.known()
        return here + listed.weight_bytes if listed else None

    def estimate(self, model: Model, context: Context) -> Estimate:
        _complete(model)
        size = sum(path.stat().st_size for path in _all_files(model))
        return Estimate(output_bytes=size, read_bytes=size, weights_held_bytes=CHUNK, work=0)


def merged_copy(model: Model, folder: Path, context: Context) -> Model:
    """The model with its adapters merged into a checkpoint of its own in `folder`; itself where it has no adapters."""
    if not adapters_of(model):
        return model
    folder.mkdir(parents=True)
    HfKind().save(model, folder, context)
    parts = {role: {name: value for name, value in held.items() if name != FACT} for role, held in model.parts.items()}
    return model.but(location=folder, parts=parts, payload=open_checkpoint(folder))


def _whole(config: Configuration | None) -> str | None:
    """The class, or the kind, of the model that a text part belongs to."""
    return None if config is None else ", ".join(config.texts("architectures")) or config.get("model_type")


def _context_length(config: Configuration) -> int | None:
    """How many tokens the model reads; None where config.json does not say it."""
    try:
        return context_of(config) if config.get("max_position_embeddings") is not None else None
    except ModelError:
        return None


def _quotient(dividend: Any, divisor: Any) -> int | None:
    """The quotient of two values from config.json; None where they are not whole numbers."""
    return dividend // divisor if isinstance(dividend, int) and isinstance(divisor, int) and divisor else None


def _complete(model: Model) -> None:
    """Download the weights of a hub's model."""
    if model.payload is not None:
        model.payload.fetch_weights()


def _pooling(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """How tokens are pooled, and the prompts. Empty for files that cannot be read: a conversion reports the reason."""
    try:
        modules = sentence_modules(sentence_files(checkpoint.folder))
    except ModelError:
        return {}
    layers = [f"dense to {each.outputs:,}" for each in modules.dense]
    how = [*modules.modes, *layers, *(["normalized"] if modules.normalized else [])]
    return {"pooling": how or None, "prompts": list(modules.prompts) or None}


def _weights(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Parameters, bytes and element types. Empty for weights that cannot be read: a conversion reports the reason.

    Nothing is downloaded: for weights on the hub, one request gives what the hub's listing says.
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
    """The checkpoint's files. Other files in its folder (optimizer states, other formats) are left out.

    For a GGUF file: the file itself and the tokenizer's files beside it.
    """
    if folder.is_file():
        beside = (folder.parent / name for name in CARRIED)
        return [folder, *(path for path in beside if path.is_file())]
    found = (path for pattern in PARTS for path in folder.glob(pattern))
    held = {path for path in found if path.is_file() and not path.name.startswith(".")}
    shards = {folder / name for name in shards_of(folder) if "/" in name and stays_inside(name)}
    return sorted(held | shards | set(sentence_files(folder).values()))


def _all_files(model: Model) -> list[Path]:
    """The checkpoint's files and those of its adapters."""
    merged = [path for adapter in adapters_of(model) for path in adapter.files]
    beside = [path for adapter in switched_of(model) for path in adapter.files]
    return [*_files(model.location), *merged, *beside]


def _beside(model: Model) -> dict[str, Path]:
    """The files of the adapters beside a checkpoint, by the names that they get in a folder with it."""
    return {f"{BESIDE}/{each.name}/{path.name}": path for each in switched_of(model) for path in each.files}


def _name(path: Path, location: Path) -> str:
    """A file's name relative to the checkpoint's folder, or to the folder of a GGUF file."""
    return path.relative_to(location.parent if location.is_file() else location).as_posix()


def _header_bytes(path: Path) -> int:
    """The bytes at the start of a weight file that tell the names, types, shapes and places of its weights."""
    if path.suffix == GGUF:
        return GGUF_HEADER
    if path.suffix != ".safetensors":
        return 0
    with path.open("rb") as file:
        start = file.read(8)
    return len(start) + int.from_bytes(start, "little")


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
