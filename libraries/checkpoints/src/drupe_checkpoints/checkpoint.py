"""Checkpoint: a folder that transformers' save_pretrained() wrote. Its configuration is read, its weights are not."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from drupe.api import ModelError, Record, counted
from drupe_checkpoints.class_tokens import with_class_tokens
from drupe_checkpoints.configuration import Configuration
from drupe_checkpoints.sentence_transformers import pools
from drupe_checkpoints.tasks import FEATURE_EXTRACTION, TEXT, task_of
from drupe_checkpoints.text_part import gives_embeddings, text_part

if TYPE_CHECKING:
    from drupe_checkpoints.adapters.reference import AdapterReference
    from drupe_checkpoints.adapters.switched import SwitchedAdapter
    from drupe_checkpoints.adapters.tensors import AdapterTensors
    from drupe_checkpoints.hub import Snapshot
    from drupe_checkpoints.summary import Summary
    from drupe_checkpoints.tokenizer.resolving import ResolvedTokenizer
    from drupe_onnx import Expression
    from drupe_packed import Packing

POINT_AT_A_CHECKPOINT = "point at a folder with config.json, *.safetensors and tokenizer.json, or at a hub id"
GGUF = ".gguf"
GENERATION = "generation_config.json"


class Checkpoint(Record, dict=True):
    """A folder with config.json; its safetensors files and tokenizer are looked at when they are needed.

    config: the content of config.json; of a model for text and images or sound, what it says of the text part.
    whole: the content of config.json of such a model; None for any other.
    generation: the settings for generating text: the content of generation_config.json, or where the file is missing,
        that of config.json and the tokens of transformers' class, as in transformers.
    snapshot: the hub's revision that was downloaded into the folder; its weights may not be downloaded yet.
    adapters: those that are merged into the tensors, in this order.
    switched: those that stay beside the tensors, so that a package can switch between them.
    """

    folder: Path
    config: Configuration
    generation: Configuration
    snapshot: Snapshot | None = None
    whole: Configuration | None = None
    adapters: tuple[AdapterReference, ...] = ()
    switched: tuple[SwitchedAdapter, ...] = ()

    @classmethod
    def open_folder(cls, folder: Path, snapshot: Snapshot | None = None) -> Checkpoint:
        """Read the configuration of the checkpoint in `folder`. Raises ModelError where there is no checkpoint."""
        path = folder / "config.json"
        if not is_file(path):
            raise no_checkpoint(folder)
        whole, generation = Configuration.read(path), folder / GENERATION
        part = text_part(whole)
        config = part or whole
        settings = Configuration.read(generation) if is_file(generation) else with_class_tokens(config)
        return cls(folder, config, settings, snapshot, None if part is None else whole)

    @property
    def has_generation_config(self) -> bool:
        """Whether the settings for generating text have a file of their own."""
        return self.generation.path != self.config.path

    @property
    def model_type(self) -> str:
        """transformers' name for the kind of configuration ("qwen2")."""
        return self.config.text("model_type")

    @property
    def task(self) -> str | None:
        """What the model is for: embeddings where sentence-transformers' files say how tokens are pooled, text for the
        text part of a larger model that gives none, otherwise what the class in config.json is for. None for an unknown
        class.
        """
        if pools(self.folder):
            return FEATURE_EXTRACTION
        if self.whole is not None:
            return FEATURE_EXTRACTION if gives_embeddings(self.whole) else TEXT
        return task_of(self.architectures, self.config.text("model_type", ""))

    @property
    def architectures(self) -> tuple[str, ...]:
        """The classes that config.json names ("Qwen2ForCausalLM"); empty where it names none."""
        return self.config.texts("architectures")

    def tokens(self, key: str) -> tuple[int, ...]:
        """Token ids such as `pad_token_id`. generation_config.json overrides config.json."""
        return self.generation.tokens(key) or self.config.tokens(key)

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """The tokens that end an answer, as in generate(): where there is a generation_config.json, only its own."""
        return self.generation.tokens("eos_token_id")

    @property
    def packing(self) -> Packing | None:
        """How matrices that are already quantized are packed; None where all are in floating point.

        Raises ModelError for a quantization that cannot be read.
        """
        from drupe_checkpoints.quantization.packing import packing_of

        return packing_of(self.config, self.folder, self.stored_types)

    @property
    def stored_types(self) -> Mapping[str, str] | None:
        """The element type of each tensor in the files, by its name; None where they are not here or broken."""
        from drupe_checkpoints.summary import stored_types

        return stored_types(self.folder)

    @property
    def is_packed(self) -> bool:
        """Whether matrices are already quantized."""
        return self.packing is not None

    @functools.cached_property
    def adapter_tensors(self) -> tuple[AdapterTensors, ...]:
        """What is in the adapters that are merged. Their configurations and headers are read. Raises ModelError."""
        from drupe_checkpoints.adapters.tensors import AdapterTensors

        return tuple(AdapterTensors.read(each) for each in self.adapters)

    def tensors(self) -> Mapping[str, Expression]:
        """Where each tensor lies in the files, with the adapters merged. Headers are checked; weights are not read.

        A matrix that is already quantized is a `PackedMatrix`, under the name that it would have in floating point. A
        hub's weights are downloaded first. Raises ModelError for files that are broken, missing or pickles.
        """
        if not (self.adapters or self.switched):
            return self.stored()
        from drupe_checkpoints.adapters.applied import with_changes

        return with_changes(self, self.stored())

    def stored(self) -> Mapping[str, Expression]:
        """The tensors of the files themselves, without adapters; see `tensors`."""
        from drupe_onnx.safetensors import tensors_of_folder

        _ = self.packing  # refuses what it can before a download
        self.fetch_weights()
        tensors, packing = tensors_of_folder(self.folder), self.packing
        if packing is None:
            return tensors
        from drupe_packed import matrices

        return matrices(tensors, packing)

    def package_files(self) -> Mapping[str, Path | bytes]:
        """The files to put beside a graph, by name. There is always a tokenizer.json. Raises ModelError."""
        from drupe_checkpoints.sentence_transformers import sentence_files
        from drupe_checkpoints.tokenizer.carried_files import carried
        from drupe_checkpoints.tokenizer.settings import TOKENIZER

        return {**carried(self.folder), **sentence_files(self.folder), TOKENIZER: self.tokenizer.content}

    @functools.cached_property
    def tokenizer(self) -> ResolvedTokenizer:
        """The tokenizer.json that the folder's files amount to, and what to know of it. Raises ModelError."""
        from drupe_checkpoints.tokenizer.resolving import resolve

        return resolve(self.folder, (self.whole or self.config).entries)

    def summary(self) -> Summary | None:
        """How many weights there are of each type, from headers alone; None for broken files.

        Raises ModelError for a quantization that cannot be read.
        """
        from drupe_checkpoints.summary import summary

        return summary(self.folder, self.packing)

    def refuse_incomplete(self) -> None:
        """Raise ModelError where weights or files of a package are missing or broken. Reads and downloads no weight."""
        self._refuse_incomplete_weights()
        self.package_files()

    def _refuse_incomplete_weights(self) -> None:
        if (self.adapters or self.switched) and (self.snapshot is None or self.snapshot.has_weights()):
            self.tensors()
            return
        if self.snapshot is not None and not self.snapshot.has_weights():
            from drupe_checkpoints.hub import no_safetensors

            listed = self.snapshot.known()
            if listed and not listed.weight_bytes:
                raise no_safetensors(self.snapshot.repository, listed)
        elif self.summary() is None:
            self.tensors()  # says what is wrong; slow, because it loads numpy and onnx_ir

    def fetch_weights(self) -> None:
        """Download the weights of a hub's model unless they are here already. Raises ModelError, OutputError."""
        if self.snapshot is not None:
            self.snapshot.fetch_weights()


def is_file(path: Path) -> bool:
    """Whether there is a file; False where the folder may not be read."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a folder; False where the folder above it may not be read."""
    try:
        return path.is_dir()
    except OSError:
        return False


def no_checkpoint(folder: Path) -> ModelError:
    """The error for a folder that is missing or holds no config.json."""
    try:
        names = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return ModelError(f"there is no folder {folder}", cure=POINT_AT_A_CHECKPOINT)
    except OSError as error:
        return ModelError(f"the folder {folder} cannot be read: {error.strerror}", cure=POINT_AT_A_CHECKPOINT)
    if not names:
        return ModelError(f"the folder {folder} is empty", cure=POINT_AT_A_CHECKPOINT)
    if names & {"adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"}:
        return ModelError(
            "the folder holds an adapter, not a model",
            where=folder,
            cure=f"name its base model, and the adapter beside it: drupe optimize MODEL --adapter {folder}",
        )
    if files := sorted(name for name in names if name.endswith(GGUF)):
        return ModelError(
            f"the folder holds no config.json, but {counted(len(files), 'GGUF file')}",
            where=folder,
            cure=f"name the file itself: {folder / files[0]}",
        )
    return ModelError("there is no config.json", where=folder, cure=POINT_AT_A_CHECKPOINT)
