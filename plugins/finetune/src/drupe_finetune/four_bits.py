"""A base in 4 bits: its linear modules hold packed levels and scales, and make floats band by band when they compute.

On a GPU, bitsandbytes does this where it is installed. Everywhere else, Drupe's own quantizer fills a model tensor by
tensor from the checkpoint's files, so no more than one matrix is held in floating point. A model whose tensors
transformers renames or joins while it loads them is loaded whole, and the user is told what that takes.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from drupe.api import ModelError, RuntimeMissing, UsageError, counted
from drupe_blockquant import Scheme, quantize_rows
from drupe_blockquant.layout import Quantized, unpack_zero_points
from drupe_blockquant.torch_products import Levels, Product
from drupe_checkpoints.wording import listed
from drupe_console import size
from drupe_finetune.models import empty_model, loaded_model
from drupe_finetune.settings import BITS, BLOCK, LOFTQ_METHODS, FinetuneConfig
from drupe_onnx import Expression, Files
from drupe_onnx.safetensors import tensors_of_folder

Tensor: TypeAlias = Any  # of torch, which linters do not see
Say: TypeAlias = Callable[[str], None]
SCHEME = Scheme(BITS, BLOCK, symmetric=False, method="search")
PACKED_BYTES = BITS / 8 + (4 + 1) / BLOCK
"""Bytes of a value in 4 bits, with its part of a block's scale in float32 and zero point."""
BASE_NOTE = "quantized_base.json"
"""The file of a checkpoint that says that it is the quantized base of an adapter."""
OTHER_WEIGHTS = (".bin", ".pt", ".gguf")
OVERSAMPLED = 8
"""How many more directions than the rank the sketch of a matrix's error has."""


def base_in_four_bits(folder: Path, config: FinetuneConfig, say: Say) -> Any:
    """The checkpoint's model with its base in 4 bits. Raises UsageError, RuntimeMissing and ModelError.

    say: is told how much memory the base takes where it cannot be filled tensor by tensor.
    """
    refuse_unfit_quantizer(config)
    if quantizer_of(config) == "bitsandbytes":
        return _by_bitsandbytes(folder)
    return Filling(folder, config, say).model()


def refuse_unfit_quantizer(config: FinetuneConfig) -> None:
    """Raise UsageError for settings that do not fit together, RuntimeMissing where a GPU is wanted and none is here."""
    if config.init == "loftq" and config.method not in LOFTQ_METHODS:
        raise UsageError(
            f"--init loftq does not work with --method {config.method}", cure=f"--method {', '.join(LOFTQ_METHODS)}"
        )
    if config.init == "loftq" and config.quantizer == "bitsandbytes":
        raise UsageError("--init loftq needs drupe's own quantizer", cure="leave --quantizer out")
    if config.quantizer == "bitsandbytes" and not torch.cuda.is_available():
        raise RuntimeMissing(
            "bitsandbytes holds a base in 4 bits only on a GPU, and there is none here",
            cure="leave --quantizer out: drupe's own quantizer works on a processor",
        )
    if config.quantizer == "bitsandbytes" and not _has_bitsandbytes():
        raise RuntimeMissing("bitsandbytes is not installed", cure="pip install bitsandbytes, or leave --quantizer out")


def quantizer_of(config: FinetuneConfig) -> str:
    """Who holds the base: bitsandbytes or drupe."""
    if config.quantizer:
        return config.quantizer
    with_a_gpu = torch.cuda.is_available() and _has_bitsandbytes() and config.init != "loftq"
    return "bitsandbytes" if with_a_gpu else "drupe"


def base_note(config: FinetuneConfig) -> dict[str, Any]:
    """What an adapter's folder says of the base that it was trained on."""
    if not config.in_four_bits:
        return {}
    if quantizer_of(config) == "bitsandbytes":
        return {"quantizer": "bitsandbytes", "bits": BITS, "type": "nf4"}
    note = {"quantizer": "drupe", "bits": BITS, "block_size": BLOCK, "symmetric": False, "init": config.init}
    settings = json.dumps([note, config.model_dump(mode="json")], sort_keys=True)
    return note | ({"id": hashlib.sha256(settings.encode()).hexdigest()[:16]} if config.init == "loftq" else {})


def write_base(model: Any, source: Path, folder: Path, config: FinetuneConfig) -> None:
    """Write the checkpoint in `source` with the values of its packed modules, in the types that it has, into `folder`.

    One tensor is in memory at a time beside those of a file. Raises ModelError where names differ from the files'.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    packed = {
        f"{name.removesuffix('.base_layer')}.weight": each
        for name, each in model.get_base_model().named_modules()
        if isinstance(each, PackedLinear)
    }
    folder.mkdir(parents=True)
    left = set(packed)
    for path in sorted(source.iterdir()):
        if path.suffix != ".safetensors":
            if path.is_file() and not path.name.endswith(OTHER_WEIGHTS):
                shutil.copyfile(path, folder / path.name)
            continue
        with safe_open(path, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (a file)
        for name in left & tensors.keys():
            tensors[name] = packed[name].dequantized().to(tensors[name].dtype)
        left -= tensors.keys()
        save_file(tensors, folder / path.name, {"format": "pt"})
    if left:
        raise ModelError(f"the checkpoint has no tensor '{min(left)}', but transformers has loaded one", where=source)
    (folder / BASE_NOTE).write_text(json.dumps(base_note(config), indent=1) + "\n", encoding="utf-8")


def _has_bitsandbytes() -> bool:
    from importlib.util import find_spec

    return find_spec("bitsandbytes") is not None


def _by_bitsandbytes(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    held = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    return AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=held, dtype=torch.bfloat16, local_files_only=True
    )


class PackedLinear(torch.nn.Linear):  # type: ignore[misc]
    """A linear module whose matrix is in 4 bits. weight: uint8 [N, bytes], which is not trained.

    loftq: the two matrices that an adapter begins with, [rank, K] and [N, rank]; None without LoftQ.
    """

    def __init__(self, module: Any, found: Quantized, loftq: tuple[Tensor, Tensor] | None = None) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = module.in_features, module.out_features
        packed = torch.from_numpy(found.packed.reshape(self.out_features, -1))
        self.weight = torch.nn.Parameter(packed, requires_grad=False)
        self.register_buffer("scales", torch.from_numpy(found.scales))
        assert found.zero_points is not None
        points = unpack_zero_points(found.zero_points, BITS, found.scales.shape[1])
        self.register_buffer("zero_points", torch.from_numpy(np.ascontiguousarray(points)))
        self.bias = module.bias
        self.loftq = loftq

    @property
    def levels(self) -> Levels:
        blocks = self.scales.shape[1]
        return Levels(self.weight.view(self.out_features, blocks, -1), self.zero_points, BITS, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = Product.apply(x, self.scales, self.levels)
        return product if self.bias is None else product + self.bias

    def dequantized(self) -> Tensor:
        """The matrix that it computes with, float32 [N, K]."""
        levels = self.levels
        return torch.cat([levels.matrix(self.scales, rows) for rows in levels.bands])


class Filling:
    """A model without values that is filled from a checkpoint, with linear modules in 4 bits."""

    def __init__(self, folder: Path, config: FinetuneConfig, say: Say) -> None:
        self._folder, self._config, self._say = folder, config, say
        self._dtype = None if torch.cuda.is_available() else torch.float32

    def model(self) -> Any:
        tensors = tensors_of_folder(self._folder)
        model = self._empty()
        if changed := self._changed(model, tensors):
            self._say(self._cost(model, tensors, changed))
            model = loaded_model(self._folder, "auto")
            self._pack(model, None)
            model = model.to(self._dtype) if self._dtype is not None else model
        else:
            self._pack(model, tensors)
            self._fill(model, tensors)
        return model.eval()

    def _empty(self) -> Any:
        model = empty_model(self._folder, self._dtype)
        model.tie_weights()
        return model

    def _changed(self, model: Any, tensors: Mapping[str, Expression]) -> list[str]:
        """The tensors that transformers makes while it loads: those that the files do not have in this shape."""
        parameters = dict(model.named_parameters())
        saved = {name: each for name, each in model.named_buffers() if name in model.state_dict()}
        return [
            *(
                name
                for name, each in parameters.items()
                if name not in tensors or tuple(tensors[name].shape) != tuple(each.shape)
            ),
            *(name for name in saved if name not in tensors),
        ]

    def _cost(self, model: Any, tensors: Mapping[str, Expression], changed: Sequence[str]) -> str:
        """What a model that is loaded whole takes of memory, before and after its linear modules are packed."""
        matrices = {f"{name}.weight" for name, _ in self._linear(model)}
        values = {name: each.numel() for name, each in model.named_parameters()}
        wide = sum(
            values[name] * (self._dtype or each.dtype).itemsize
            for name, each in model.named_parameters()
            if name not in matrices
        )
        packed = round(sum(values[name] for name in matrices) * PACKED_BYTES)
        whole = max(sum(each.nbytes for each in tensors.values()), wide + packed)
        return (
            f"transformers makes {counted(len(changed), 'tensor')} of the model while it loads it ({listed(changed)}), "
            f"so the base is loaded whole, which takes up to {size(whole)} of memory; {size(packed)} are in 4 bits "
            f"afterwards, and {size(wide)} stay in floating point"
        )

    def _linear(self, model: Any) -> list[tuple[str, Any]]:
        """The modules that are held in 4 bits, by name."""
        head = model.get_output_embeddings()
        return [
            (name, each)
            for name, each in model.named_modules()
            if type(each) is torch.nn.Linear and each is not head and each.in_features >= BLOCK
        ]

    def _pack(self, model: Any, tensors: Mapping[str, Expression] | None) -> None:
        """Replace linear modules by packed ones, with values of the files, or else of the module itself."""
        if not (linear := self._linear(model)):
            raise ModelError(
                "the model has no linear module to hold in 4 bits", where=self._folder, cure="--method lora"
            )
        for name, module in linear:
            rows = self._rows(tensors[f"{name}.weight"]) if tensors is not None else _numpy(module.weight)
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, PackedLinear(module, *self._quantized(name, rows)))

    def _quantized(self, name: str, rows: np.ndarray[Any, Any]) -> tuple[Quantized, tuple[Tensor, Tensor] | None]:
        if self._config.init == "loftq" and _is_target(name, self._config):
            return loftq(rows, self._config)
        return quantize_rows(rows, SCHEME, np.float32), None

    def _fill(self, model: Any, tensors: Mapping[str, Expression]) -> None:
        """Give what is not packed its values."""
        from accelerate.utils import set_module_tensor_to_device

        for name, parameter in list(model.named_parameters()):
            if parameter.is_meta:
                value = torch.from_numpy(self._rows(tensors[name])).to(self._dtype or parameter.dtype)
                set_module_tensor_to_device(model, name, "cpu", value=value)
        model.tie_weights()

    def _rows(self, tensor: Expression) -> np.ndarray[Any, Any]:
        with Files() as files:
            return np.array(tensor.value(files), np.float32)


def loftq(rows: np.ndarray[Any, Any], config: FinetuneConfig) -> tuple[Quantized, tuple[Tensor, Tensor]]:
    """LoftQ (https://arxiv.org/abs/2310.08659): levels Q and an adapter BA whose sum is near to a matrix [N, K].

    In turn, Q quantizes what the adapter leaves, and the adapter is the best one of its rank for what Q leaves. The
    turn with the least error is taken.
    """
    whole = torch.from_numpy(rows)
    scale, best, adapter = config.adapter_scale, math.inf, torch.zeros(())
    chosen: tuple[Quantized, tuple[Tensor, Tensor]] | None = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        for _ in range(config.loftq_iterations):
            found = quantize_rows((whole - adapter).numpy(), SCHEME, np.float32)
            left = whole - _dequantized(found, rows.shape[1])
            a, b = _best_of_rank(left, config.rank, scale)
            adapter = scale * (b @ a)
            error = float((left - adapter).square().sum())
            if error < best:
                best, chosen = error, (found, (a, b))
    assert chosen is not None
    return chosen


def _best_of_rank(matrix: Tensor, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    """Two matrices [rank, K] and [N, rank] whose product, times `scale`, is near to a matrix [N, K]."""
    u, s, v = torch.svd_lowrank(matrix, q=min(rank + OVERSAMPLED, *matrix.shape), niter=4)
    size = (s[:rank] / scale).sqrt()
    a, b = torch.zeros(rank, matrix.shape[1]), torch.zeros(matrix.shape[0], rank)
    a[: len(size)] = size[:, None] * v[:, :rank].T
    b[:, : len(size)] = u[:, :rank] * size
    return a, b


def begin_with_loftq(model: Any) -> None:
    """Give the adapters of a peft model the matrices that LoftQ has found."""
    with torch.no_grad():
        for module in model.modules():
            base = getattr(module, "base_layer", None)
            if isinstance(base, PackedLinear) and base.loftq is not None:
                module.lora_A["default"].weight.copy_(base.loftq[0])
                module.lora_B["default"].weight.copy_(base.loftq[1])
                base.loftq = None


def _dequantized(found: Quantized, columns: int) -> Tensor:
    from drupe_blockquant import dequantize_rows

    return torch.from_numpy(dequantize_rows(found, SCHEME, columns))


def _is_target(name: str, config: FinetuneConfig) -> bool:
    return not config.targets or any(name == each or name.endswith(f".{each}") for each in config.targets)


def _numpy(parameter: Tensor) -> np.ndarray[Any, Any]:
    rows: np.ndarray[Any, Any] = parameter.detach().float().numpy()
    return rows
