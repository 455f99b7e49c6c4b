"""Entry module: what this plugin brings."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_evaluators() -> list[Ref]:
    return [
        Ref("quality", "drupe_eval_quality.quality:Quality", "KL divergence, top-1 agreement and perplexity of a text"),
        Ref("speed", "drupe_eval_quality.speed:Speed", "prompt and decode rates"),
    ]


@hookimpl
def drupe_commands() -> list[Ref]:
    return [
        Ref("evaluate", "drupe_eval_quality.command:evaluate", "Measure a package, alone or against another model.")
    ]
