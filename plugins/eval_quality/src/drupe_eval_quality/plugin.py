"""The entry module of drupe-eval-quality: its evaluators and options."""

from drupe.api import Option, Ref, hookimpl

GROUP = "Comparing with the source"


@hookimpl
def drupe_evaluators() -> list[Ref]:
    return [
        Ref("quality", "drupe_eval_quality.quality:Quality", "KL divergence, top-1 agreement and perplexity of a text"),
        Ref(
            "layers",
            "drupe_eval_quality.layers:Layers",
            "the KL divergence that each layer costs when only this layer is quantized",
        ),
        Ref(
            "samples",
            "drupe_eval_quality.samples:Samples",
            "what package and source write behind a few prompts, and from where on they differ",
        ),
    ]


@hookimpl
def drupe_options() -> list[Option]:
    return [
        Option(
            "evaluation_data",
            "The text to compare on: a file, folder or data set.",
            group=GROUP,
            default="drupe's built-in short text",
        ),
        Option("tokens", "How many tokens of the text to compare on.", int, group=GROUP, default="256"),
        Option("length", "How many tokens to predict in one context.", int, group=GROUP, default="256"),
        Option(
            "seed",
            "A number that chooses pieces of the text.",
            int,
            group=GROUP,
            default="the beginning of the text",
        ),
        Option(
            "max_kl",
            "Largest KL divergence from the source, in nats a token; a larger one is an error. int4 packages are given "
            "the bytes that should keep it, by an estimate with a margin.",
            float,
            group=GROUP,
            default="only broken models fail",
        ),
    ]
