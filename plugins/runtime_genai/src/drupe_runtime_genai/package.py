"""The pass `package-genai`: a decoder becomes a package that onnxruntime-genai runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import Field

from drupe.api import Context, Model, ModelError, Pass, PassConfig, Shape, Target
from drupe_runtime_genai import genai_config, tokenizer_files
from drupe_runtime_genai.providers import provider_options

if TYPE_CHECKING:
    from drupe_onnx import ir
    from drupe_onnx.package import DecoderDescription, OnnxPackage

COMPONENT = "model"
FILENAME = "model.onnx"
CONFIG = "genai_config.json"
GENERATION = "generation_config.json"


class PackageGenaiConfig(PassConfig):
    """What `package-genai` can be told."""

    max_length: int | None = Field(
        None, ge=2, description="room for so many tokens, prompt and answer together; by default what fits in memory"
    )
    threads: int | None = Field(
        None, ge=1, description="threads that the package asks for; by default those of the run, for this machine's CPU"
    )


class PackageGenai(Pass):
    """Adds genai_config.json, made from the decoder's description, its graph and the target.

    Also puts the tokenizer's files into a form that onnxruntime-genai reads: see `tokenizer_files`.
    """

    name = "package-genai"
    summary = "adds what onnxruntime-genai needs to run a decoder: genai_config.json and a tokenizer it reads"
    revision = 1
    Config = PackageGenaiConfig
    requires = Shape("onnx", {"packaged": "no"})
    ensures = Shape("onnx", {"packaged": "yes"})

    def run(self, model: Model, config: PackageGenaiConfig, context: Context) -> Model:
        package: OnnxPackage = model.payload
        description = package.decoder
        if description is None or COMPONENT not in package.components:
            raise ModelError(
                "the graph says nothing of the decoder it is, so no genai_config.json can be made for it",
                cure="start from the checkpoint, with the pass build-decoder",
            )
        package.files.update(tokenizer_files.readable(package.files))
        document = _document(package, description, config, context)
        package.files[CONFIG] = (json.dumps(document, indent=4) + "\n").encode("utf-8")
        return model


def _document(
    package: OnnxPackage, description: DecoderDescription, config: PackageGenaiConfig, context: Context
) -> dict[str, Any]:
    graph = package.components[COMPONENT].graph
    ports = genai_config.ports(_names(graph.inputs), _names(graph.outputs))
    if ports.layers != description.layers:
        raise ModelError(f"the graph has caches for {ports.layers} layers, its description {description.layers}")
    return genai_config.document(
        description,
        ports,
        filename=FILENAME,
        provider_options=provider_options(context.target),
        generation=_generation(package),
        length=genai_config.max_length(
            config.max_length,
            description.context_length,
            cache_bytes_per_token(graph, ports, description),
            weight_bytes(graph),
            context.target.device.memory if context.target.device else None,
        ),
        shares_cache=shares_cache(graph, ports),
        threads=threads(config, context.target, context),
    )


def threads(config: PackageGenaiConfig, target: Target, context: Context) -> int | None:
    """Threads to ask for: those asked for, or the run's where the target is this machine's CPU.

    onnxruntime's own choice is one thread for each physical core, which takes hyperthreads for one core and knows
    nothing of a container's share. What another machine has is not known, so nothing is asked for there.
    """
    if config.threads is not None:
        return config.threads
    if target.device is not None and target.device.kind == "cpu":
        return context.threads
    return None


def cache_bytes_per_token(graph: ir.Graph, ports: genai_config.Ports, description: DecoderDescription) -> int:
    """Bytes of keys and values for one more token, in all layers. Element types are the graph's own."""
    inputs = {value.name: value for value in graph.inputs}
    bits = 0
    for pattern in (ports.inputs["past_key_names"], ports.inputs["past_value_names"]):
        dtype = inputs[pattern.replace("%d", "0")].dtype
        bits += 32 if dtype is None else dtype.bitwidth
    return description.layers * description.kv_heads * description.head_dim * bits // 8


def weight_bytes(graph: ir.Graph) -> int:
    """Bytes of the initializers; two that are one tensor count once."""
    from drupe_onnx.weights import expression_of

    total = 0
    seen = set()
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None:
            continue
        key: object = expression_of(value) or id(tensor)
        if key not in seen:
            seen.add(key)
            total += tensor.nbytes
    return total


def shares_cache(graph: ir.Graph, ports: genai_config.Ports) -> bool:
    """Whether each cache output may be the very buffer of its input: GroupQueryAttention then appends in place.

    Other operators concatenate, and would overwrite what they read.
    """
    patterns = [ports.outputs["present_key_names"], ports.outputs["present_value_names"]]
    names = {pattern.replace("%d", str(layer)) for pattern in patterns for layer in range(ports.layers)}
    producers = [value.producer() for value in graph.outputs if value.name in names]
    return all(node is not None and node.op_type == "GroupQueryAttention" for node in producers)


def _generation(package: OnnxPackage) -> dict[str, Any]:
    """The checkpoint's generation_config.json; empty where it has none."""
    content = package.files.get(GENERATION)
    if content is None:
        return {}
    try:
        generation = json.loads(tokenizer_files.read(content))
    except ValueError as error:
        raise ModelError(f"{GENERATION} is not JSON: {error}", where=GENERATION, cure="fetch it again") from error
    return generation if isinstance(generation, dict) else {}


def _names(values: Any) -> list[str]:
    return [value.name for value in values if value.name]
