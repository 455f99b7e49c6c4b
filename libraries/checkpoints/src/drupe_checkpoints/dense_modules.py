"""The modules Dense of sentence-transformers: layers that a text's embedding goes through after pooling.

Each has a folder with a config.json and a file of weights: `linear.weight` [out_features, in_features], `linear.bias`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from drupe.api import ModelError, Record, unknown

if TYPE_CHECKING:
    from drupe_onnx import Expression

WEIGHTS, PICKLE = "model.safetensors", "pytorch_model.bin"
ACTIVATIONS = ("Identity", "ReLU", "Sigmoid", "Tanh")
"""The classes of torch that are built as activation functions."""
DEFAULT_ACTIVATION = "torch.nn.modules.activation.Tanh"
INPUT = "sentence_embedding"
SAVE_AGAIN = "save the model again with sentence-transformers: SentenceTransformer(...).save_pretrained(FOLDER)"


class Dense(Record):
    """activation(linear(x)) on embeddings of `inputs` values, which gives `outputs` values.

    activation: of ACTIVATIONS. file: the name of the config.json that says so.
    """

    file: str
    inputs: int
    outputs: int
    bias: bool
    activation: str

    @property
    def weights_file(self) -> str:
        """The name of the file that holds the weights."""
        return weights_file(self.file)


class DenseWeights(Record):
    """matrix: [outputs, inputs]. bias: [outputs]; None without one."""

    matrix: Expression
    bias: Expression | None


def weights_file(config_file: str) -> str:
    """The name of the file of weights beside a module's config.json."""
    return (PurePosixPath(config_file).parent / WEIGHTS).as_posix()


def dense_of(config: Mapping[str, Any], file: str, place: Path | str) -> Dense:
    """The module that a config.json describes. Raises ModelError for one that is not built, or is broken."""
    inputs, outputs = (_size(config, key, file, place) for key in ("in_features", "out_features"))
    bias = config.get("bias", True)
    if not isinstance(bias, bool):
        raise ModelError(f"{file} wants true or false as bias, not {bias!r}", where=place, cure=SAVE_AGAIN)
    read, written = config.get("module_input_name", INPUT), config.get("module_output_name")
    if read != INPUT or written not in (None, INPUT):
        raise _not_built(f"reads '{read}' and writes '{written or read}', not the embedding of a text", file, place)
    if config.get("use_residual"):
        raise _not_built("adds its input to its result (use_residual)", file, place)
    return Dense(file, inputs, outputs, bias, _activation(config, file, place))


def _size(config: Mapping[str, Any], key: str, file: str, place: Path | str) -> int:
    size = config.get(key)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ModelError(f"{file} wants a number of values as {key}, not {size!r}", where=place, cure=SAVE_AGAIN)
    return size


def _not_built(what: str, file: str, place: Path | str) -> ModelError:
    return ModelError(
        f"the module Dense of {file} {what}, which is not built",
        where=place,
        cure="use a model of embeddings without this module",
    )


def _activation(config: Mapping[str, Any], file: str, place: Path | str) -> str:
    said = str(config.get("activation_function", DEFAULT_ACTIVATION))
    name = said.rpartition(".")[2] if said.startswith("torch.") else said
    if name not in ACTIVATIONS:
        what = f"{file} names an {unknown('activation function', name, ACTIVATIONS).what}"
        cure = f"correct it if it is misspelt; classes of torch.nn that are built: {', '.join(ACTIVATIONS)}"
        raise ModelError(what, where=place, cure=cure)
    return name


def dense_weights(files: Mapping[str, Path | bytes], dense: Dense) -> DenseWeights:
    """A module's weights, which are not read yet. Raises ModelError for missing ones, and for others than it has."""
    from drupe_onnx import read_header

    path = files.get(dense.weights_file)
    if not isinstance(path, Path):
        raise _without_weights(files, dense)
    tensors = read_header(path)
    wanted = {"linear.weight": (dense.outputs, dense.inputs)} | (
        {"linear.bias": (dense.outputs,)} if dense.bias else {}
    )
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found != wanted:
        raise ModelError(
            f"{dense.file} asks for {_shown(wanted)}, but {dense.weights_file} holds {_shown(found)}",
            where=path,
            cure="check that both files belong to this model, or " + SAVE_AGAIN,
        )
    return DenseWeights(tensors["linear.weight"], tensors.get("linear.bias"))


def _without_weights(files: Mapping[str, Path | bytes], dense: Dense) -> ModelError:
    config = files.get(dense.file)
    folder = config.parent if isinstance(config, Path) else None
    if folder is not None and (folder / PICKLE).is_file():
        what, cure = f"the weights of {dense.file} are a pickle ({PICKLE}), which drupe does not read", SAVE_AGAIN
    else:
        what, cure = f"{dense.weights_file} is missing", f"download it, or {SAVE_AGAIN}"
    return ModelError(what, where=folder or dense.weights_file, cure=cure)


def _shown(tensors: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in sorted(tensors.items())) or "no tensor"
