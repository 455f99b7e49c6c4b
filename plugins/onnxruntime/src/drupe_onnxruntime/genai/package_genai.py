"""The pass `package-genai`: turns a decoder into a package that onnxruntime-genai runs."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from pydantic import Field

from drupe.api import Context, Form, Model, ModelError, Notice, Pass, PassConfig, Target, UsageError, counted
from drupe_onnxruntime.genai import genai_config, tokenizer_files
from drupe_onnxruntime.genai.carried_states import not_carried
from drupe_onnxruntime.genai.token_check import form_notices, token_check
from drupe_onnxruntime.provider_options import genai_provider_options

if TYPE_CHECKING:
    from drupe_decoding import DecoderPorts
    from drupe_onnx import DecoderDescription, OnnxPackage, ir

CONFIG = "genai_config.json"
GENERATION = "generation_config.json"


class PackageGenaiConfig(PassConfig):
    """The settings of `package-genai`."""

    max_length: int | None = Field(
        None, ge=2, description="how many tokens there is room for, prompt and answer; by default what fits in memory"
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=256,
        description="threads that the package asks for; by default those of the run, for this machine's CPU",
    )
    compare_tokens: bool = Field(
        True, description="compare the tokens of onnxruntime-genai's own tokenizer with those of tokenizers"
    )


class PackageGenai(Pass):
    """Adds genai_config.json, made from the decoder's description, its graph and the target.

    Also puts the tokenizer's files and the chat template into a form that onnxruntime-genai reads: see
    `tokenizer_files` and `templates`. A decoder whose states onnxruntime-genai does not carry (`carried`) becomes a
    package without genai_config.json, for onnxruntime; a notice says so and why.
    """

    name = "package-genai"
    summary = "adds what onnxruntime-genai needs to run a decoder: genai_config.json and a tokenizer it reads"
    revision = 1
    Config = PackageGenaiConfig
    requires = Form("onnx", {"packaged": "no"})
    ensures = Form("onnx", {"packaged": "yes"})
    whole = True  # a model of several parts is an error: it must not be packaged part by part

    def run(self, model: Model, config: PackageGenaiConfig, context: Context) -> Model:
        from drupe_decoding import decoder_ports

        package: OnnxPackage = model.payload
        description = package.decoder
        if description is None:
            raise ModelError(
                "the graph has no description of its decoder, so no genai_config.json can be made for it",
                cure="start from the checkpoint, with the pass build-decoder",
            )
        decoder = decoder_ports(package.component.graph)
        if reason := not_carried(decoder):
            return _for_onnxruntime(model, reason, config, context)
        return _for_genai(model, decoder, description, config, context)


def _for_genai(
    model: Model, decoder: DecoderPorts, description: DecoderDescription, config: PackageGenaiConfig, context: Context
) -> Model:
    from drupe_decoding import generation_notices
    from drupe_onnxruntime.genai.templates.serving import served_templates

    package: OnnxPackage = model.payload
    package.files.update(tokenizer_files.readable(package.files))
    tokenizer = tokenizer_files.tokenizer_in(package.files)
    form = tokenizer_files.own_form(package.files, tokenizer)
    package.files.update(form.files())
    rows = description.vocab_size
    check = token_check(package.files, tokenizer, rows, context.scratch) if config.compare_tokens else nullcontext()
    with check as of_tokens:  # it runs while the chat template is compared
        served = served_templates(package.files)
        package.files.update(served.files)
        document = _document(package, decoder, description, config, context)
        package.files[CONFIG] = (json.dumps(document, indent=4) + "\n").encode("utf-8")
        generation = _generation(package)
        return model.noticed(
            *generation_notices(genai_config.settings_beside_ends(description, generation), rows),
            *genai_config.end_notices(description, generation),
            *served.notices,
            *form_notices(form),
            *(of_tokens() if of_tokens else ()),
        )


def _for_onnxruntime(model: Model, reason: str, config: PackageGenaiConfig, context: Context) -> Model:
    """A package without a genai_config.json, which Drupe runs with onnxruntime, in a loop of its own."""
    if config.max_length is not None:
        raise UsageError(
            f"max_length has no effect on this model, which onnxruntime-genai cannot run: {reason}",
            cure="leave max_length out; a session of onnxruntime has room for the whole context",
        )
    from drupe_onnx import THREADS
    from drupe_onnx.session_options import OWN, with_options

    package: OnnxPackage = model.payload
    package.files.pop(CONFIG, None)
    options: dict[str, Any] = {}
    THREADS.put_into(options, threads(config, context.target, context))
    if (content := with_options(OWN, None, options)) is not None:
        package.files[OWN] = content
    cure = "run it with drupe (generate, chat) or with drupe.open(...); onnxruntime-genai cannot open it"
    return model.noticed(Notice("runtime", "chosen", f"onnxruntime runs the package: {reason}", cure))


def _document(
    package: OnnxPackage,
    decoder: DecoderPorts,
    description: DecoderDescription,
    config: PackageGenaiConfig,
    context: Context,
) -> dict[str, Any]:
    from drupe_onnx import initializers_of, weight_bytes

    graph = package.component.graph
    names = genai_config.port_names(decoder)
    if names.layers > description.layers:
        raise ModelError(
            f"the graph has caches for {counted(names.layers, 'layer')}, but its description names {description.layers}"
        )
    return genai_config.document(
        description,
        names,
        filename=next(iter(package.graph_names.values())),
        provider_options=genai_provider_options(context.target),
        generation=_generation(package),
        length=genai_config.max_length(
            config.max_length,
            description.context_length,
            cache_bytes_per_token(graph, decoder, description),
            weight_bytes(initializers_of(package.component)),
            context.target.device.memory if context.target.device else None,
        ),
        shares_cache=shares_cache(graph, decoder),
        threads=threads(config, context.target, context),
    )


def threads(config: PackageGenaiConfig, target: Target, context: Context) -> int | None:
    """How many threads the package asks for: the configured number, or the run's if the target is this machine's CPU.

    onnxruntime's default is one thread for each physical core, which ignores hyperthreads and a container's limit. For
    another machine the number is not known, so the package does not ask for one.
    """
    if config.threads is not None:
        return config.threads
    if target.device is not None and target.device.kind == "cpu":
        return context.threads
    return None


def cache_bytes_per_token(graph: ir.Graph, decoder: DecoderPorts, description: DecoderDescription) -> int:
    """Bytes of keys and values for each token, in all layers, with the graph's element types."""
    from drupe_decoding import is_state

    types = {value.name: value.dtype for value in graph.inputs}
    growing = [cache.past for cache in decoder.caches if not is_state(cache.past.name)]
    bits = (32 if (dtype := types[past.name]) is None else dtype.bitwidth for past in growing)
    sizes = ((past.size(1) or description.kv_heads) * (past.size(3) or description.head_dim) for past in growing)
    return sum(size * each for size, each in zip(sizes, bits, strict=True)) // 8


def shares_cache(graph: ir.Graph, decoder: DecoderPorts) -> bool:
    """Whether each cache output may use the buffer of its input: GroupQueryAttention appends in place.

    Other operators concatenate, and would overwrite their input while they read it.
    """
    from drupe_decoding import is_state

    names = {cache.present for cache in decoder.caches if not is_state(cache.past.name)}
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
        raise ModelError(f"{GENERATION} is not JSON: {error}", where=GENERATION, cure="download it again") from error
    return generation if isinstance(generation, dict) else {}
