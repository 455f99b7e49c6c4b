"""OnnxKind: the model kind `onnx`, graphs with lazy weights and the files beside them."""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from drupe.api import Context, Estimate, Model, ModelKind, Target, file_digest
from drupe_onnx import checking, ir
from drupe_onnx.expressions import Producer, file_stamp, fingerprint, sources
from drupe_onnx.layout import Layout, distinct_sources, reference, serialized
from drupe_onnx.loading import RECORD, load_package
from drupe_onnx.package import LAST_TOKEN, ROLE, OnnxPackage, graphs_of, initializers_of
from drupe_onnx.storing import restore_package, store_package
from drupe_onnx.weights import expression_of
from drupe_onnx.writer import package_size, peak_bytes, write_package

QUANTIZED = ("MatMulNBits", "GatherBlockQuantized", "QMoE")


class OnnxKind(ModelKind):
    """Models whose payload is an OnnxPackage; its location is the folder it was read from, or an .onnx file.

    Facts: weights = float | quantized, logits = last | all, packaged = no | yes.
    """

    name: ClassVar[str] = "onnx"

    def load(self, model: Model) -> Model:
        if model.payload is not None:
            return model
        package = load_package(model.location)
        return model.but(payload=package, facts={**facts_of(package), **model.facts})

    def save(self, model: Model, folder: Path, context: Context) -> Mapping[str, str]:
        return write_package(self._package(model), folder, context)

    def fork(self, model: Model) -> Model:
        return model.but(payload=self._package(model).clone())

    def fingerprint(self, model: Model, thorough: bool = True) -> str:
        stamp = functools.cache(file_digest if thorough else file_stamp)
        package = self._package(model)
        digest = hashlib.sha256()
        for name, component in package.components.items():
            weights = [expression_of(value) for value in initializers_of(component)]
            digest.update(name.encode())
            digest.update(_without_weights(component))
            digest.update(json.dumps([weight and fingerprint(weight, stamp) for weight in weights]).encode())
        for name, content in sorted(package.files.items()):
            held = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else stamp(content)
            digest.update(json.dumps([name, held]).encode())
        return digest.hexdigest()

    def describe(self, model: Model) -> Mapping[str, str]:
        package = self._package(model)
        described = {"kind": "ONNX package"}
        for name, component in package.components.items():
            prefix = "" if name == "model" else f"{name}: "
            described |= {prefix + label: text for label, text in _describe_graph(component).items()}
        if decoder := package.decoder:
            described["architecture"] = f"{decoder.model_type}, {decoder.layers} layers, {decoder.hidden_size} wide"
            described["context length"] = f"{decoder.context_length:,} tokens"
            described["activations"] = decoder.activations
        if package.files:
            described["files"] = ", ".join(f"{name} {_size(content)}" for name, content in package.files.items())
        return described | _describe_record(model.location / RECORD)

    def check(self, model: Model, target: Target) -> Sequence[str]:
        components = self._package(model).components
        found = [problem for component in components.values() for problem in checking.problems(component, target)]
        return tuple(dict.fromkeys(found))

    def estimate(self, model: Model, context: Context) -> Estimate:
        package = self._package(model)
        layouts = {name: Layout(component) for name, component in package.components.items()}
        read = {each for layout in layouts.values() for each in distinct_sources(layout)}
        producers = {
            walk.maker for layout in layouts.values() for walk in layout.walks if isinstance(walk.maker, Producer)
        }
        return Estimate(
            output_bytes=package_size(package, layouts),
            read_bytes=sum(source.nbytes for source in read),
            peak_bytes=max(peak_bytes(layout, context) for layout in layouts.values()),
            work=sum(source.size for producer in producers for source in sources(producer)),
        )

    def store(self, model: Model, folder: Path, context: Context) -> None:
        store_package(self._package(model), folder, context.scratch)

    def restore(self, model: Model) -> Model:
        return model.but(payload=restore_package(model.location))

    def _package(self, model: Model) -> OnnxPackage:
        package = self.load(model).payload
        assert isinstance(package, OnnxPackage)
        return package


def facts_of(package: OnnxPackage) -> dict[str, str]:
    """The facts that the graphs themselves show."""
    nodes = [node for component in package.components.values() for graph in graphs_of(component) for node in graph]
    quantized = any(node.op_type in QUANTIZED for node in nodes)
    last = any(node.metadata_props.get(ROLE) == LAST_TOKEN for node in nodes)
    return {
        "weights": "quantized" if quantized else "float",
        "logits": "last" if last else "all",
        "packaged": "yes" if "genai_config.json" in package.files else "no",
    }


def _without_weights(model: ir.Model) -> bytes:
    """The graph alone, for a digest: of its weights, names, types and shapes."""
    values = list(initializers_of(model))
    return serialized(model, [reference(value, "", 0, 0) if expression_of(value) else None for value in values])


def _describe_graph(model: ir.Model) -> dict[str, str]:
    nodes = [node for graph in graphs_of(model) for node in graph]
    schemes = Counter(
        (int(bits.value), int(size.value))
        for node in nodes
        if node.op_type in QUANTIZED
        and (bits := node.attributes.get("bits"))
        and (size := node.attributes.get("block_size"))
    )
    return {
        "operators": f"{len(nodes):,}",
        "weights": _describe_weights(model),
        "quantization": ", ".join(
            f"{bits} bits in blocks of {size} ({count} {'matrices' if count > 1 else 'matrix'})"
            for (bits, size), count in schemes.most_common()
        )
        or "none",
    }


def _describe_weights(model: ir.Model) -> str:
    """Bytes by element type; weights that share their bytes count once."""
    bytes_of: Counter[str] = Counter()
    for expression in {expression_of(value) for value in initializers_of(model)} - {None}:
        if expression:
            bytes_of[checking.element_name(expression.dtype)] += expression.nbytes
    parts = [f"{name} {nbytes / 1e6:,.1f} MB" for name, nbytes in bytes_of.most_common()]
    return f"{sum(bytes_of.values()) / 1e6:,.1f} MB ({', '.join(parts)})"


def _size(content: Path | bytes) -> str:
    return f"{(len(content) if isinstance(content, bytes) else content.stat().st_size) / 1e3:,.1f} kB"


def _describe_record(path: Path) -> dict[str, str]:
    """What the record of the run says, where the package has one."""
    try:
        record: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(record, dict):
        return {}
    target = record.get("target") if isinstance(record.get("target"), dict) else {}
    told = {
        "made for": (target or {}).get("provider"),
        "precision": record.get("precision"),
        "made by": record.get("drupe") and f"drupe {record['drupe']}",
    }
    return {label: str(text) for label, text in told.items() if text}
