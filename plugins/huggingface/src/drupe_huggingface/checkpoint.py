"""Checkpoint: a folder that transformers' save_pretrained() wrote, with its configuration read and its weights not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from drupe.api import ModelError
from drupe_huggingface.configuration import Configuration

if TYPE_CHECKING:
    from drupe_huggingface.hub import Snapshot
    from drupe_huggingface.summary import Summary
    from drupe_onnx import Expression
    from drupe_packed import Packing

POINT_AT_A_CHECKPOINT = "point at a folder with config.json, *.safetensors and tokenizer.json, or at a hub id"
GGUF = ".gguf"


@dataclass(frozen=True)
class Checkpoint:
    """A folder with config.json and, by and by, safetensors files and a tokenizer.

    config: what config.json says. generation: what generation_config.json says, empty where there is none.
    snapshot: the hub's revision that the folder is a download of, whose weights may still have to come.
    """

    folder: Path
    config: Configuration
    generation: Configuration
    snapshot: Snapshot | None = None

    @classmethod
    def open(cls, folder: Path, snapshot: Snapshot | None = None) -> Checkpoint:
        """Read the configuration of the checkpoint in `folder`, which may be a GGUF file in the place of one.

        Raises ModelError for what is not one.
        """
        if folder.suffix == GGUF and is_file(folder):
            from drupe_huggingface.gguf.checkpoint import GgufCheckpoint

            return GgufCheckpoint.open_file(folder)
        path = folder / "config.json"
        if not is_file(path):
            raise no_checkpoint(folder)
        generation = folder / "generation_config.json"
        return cls(
            folder,
            Configuration.read(path),
            Configuration.read(generation) if is_file(generation) else Configuration(generation, {}),
            snapshot,
        )

    @property
    def model_type(self) -> str:
        """transformers' name for the kind of configuration ("qwen2")."""
        return self.config.text("model_type")

    @property
    def architectures(self) -> tuple[str, ...]:
        """The classes that config.json names ("Qwen2ForCausalLM"); empty where it names none."""
        return self.config.texts("architectures")

    def tokens(self, key: str) -> tuple[int, ...]:
        """Token ids such as `eos_token_id`; generation_config.json has the last word, as it has in generate()."""
        return self.generation.tokens(key) or self.config.tokens(key)

    @property
    def packing(self) -> Packing | None:
        """How matrices are packed that are quantized already; None where all are in floating point.

        Raises ModelError for a quantization that cannot be read.
        """
        from drupe_huggingface.quantization import packing_of

        return packing_of(self.config)

    def tensors(self) -> Mapping[str, Expression]:
        """Where each tensor lies in the safetensors files. Headers are checked, weights are not read.

        A matrix that is quantized already is a `PackedMatrix`, under the name that it would have in floating point. A
        hub's weights are downloaded first. Raises ModelError for files that are broken, missing or pickles.
        """
        from drupe_onnx.safetensors import open_checkpoint

        packing = self.packing
        self.fetch_weights()
        tensors = open_checkpoint(self.folder)
        if packing is None:
            return tensors
        from drupe_packed import matrices

        return matrices(tensors, packing)

    def package_files(self) -> Mapping[str, Path | bytes]:
        """The files to put beside a graph, by name: see `tokenizer.package_files`."""
        from drupe_huggingface.tokenizer import package_files

        return package_files(self.folder)

    def summary(self) -> Summary | None:
        """How many weights there are of each type, from headers alone; None for files that are not sound.

        Raises ModelError for a quantization that cannot be read.
        """
        from drupe_huggingface.summary import summary

        return summary(self.folder, self.packing)

    def refuse_incomplete(self) -> None:
        """Raise ModelError where weights or tokenizer are missing or broken, without reading or fetching a weight."""
        from drupe_huggingface.complete import refuse_incomplete

        refuse_incomplete(self)

    def fetch_weights(self) -> None:
        """Download the weights of a hub's model, where that has not been done. Raises ModelError, OutputError."""
        if self.snapshot is not None:
            self.snapshot.fetch_weights()


def is_file(path: Path) -> bool:
    """Whether there is a file; no, where looking is forbidden."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a folder; no, where looking is forbidden."""
    try:
        return path.is_dir()
    except OSError:
        return False


def no_checkpoint(folder: Path) -> ModelError:
    """What to say of a folder, or of none, that holds no config.json."""
    try:
        names = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return ModelError(f"there is no folder {folder}", cure=POINT_AT_A_CHECKPOINT)
    except OSError as error:
        return ModelError(f"the folder {folder} cannot be read: {error.strerror}", cure=POINT_AT_A_CHECKPOINT)
    if not names:
        return ModelError(f"the folder {folder} is empty", cure=POINT_AT_A_CHECKPOINT)
    if "adapter_config.json" in names:
        return ModelError(
            "the folder holds an adapter, not a model",
            where=folder,
            cure="merge it into its base model first: peft's merge_and_unload(), then save_pretrained()",
        )
    return ModelError("there is no config.json", where=folder, cure=POINT_AT_A_CHECKPOINT)
