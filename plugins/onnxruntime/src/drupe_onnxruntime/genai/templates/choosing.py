"""choosing: the form of a chat template that onnxruntime-genai's engine renders most like jinja2."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from drupe.api import ModelError, Notice, RuntimeMissing
from drupe_onnxruntime.genai.templates.comparing import Difference, Expected, expected, means_the_same
from drupe_onnxruntime.genai.templates.engine import TemplateEngine, template_engine
from drupe_onnxruntime.genai.templates.rewriting import rewritten_template
from drupe_onnxruntime.wheels import GENAI, absence
from drupe_tokenization import conversations

ABOUT = "chat template"
IN_A_SCRIPT = (
    "in a script, make the prompt with `apply_chat_template` of transformers, or with "
    "`drupe.open(PACKAGE).conversation(messages)`; `drupe chat` needs nothing"
)
EXCERPT = 40
"""How many characters of a prompt a message shows."""


def choose(text: str, tokens: Mapping[str, str], tools: bool) -> tuple[str, list[Notice]]:
    """The template for onnxruntime-genai, and what a user should know of it.

    tokens: the special tokens by name. tools: whether the template is also for conversations with tools.
    """
    return _chosen(text, tuple(tokens.items()), tools, absence(GENAI))


@functools.lru_cache(maxsize=4)  # a plan is previewed before it is run
def _chosen(
    text: str, special: tuple[tuple[str, str], ...], tools: bool, problem: tuple[str, str] | None
) -> tuple[str, list[Notice]]:
    tokens = dict(special)
    samples = [each for each in conversations() if tools or not each.tools]
    with nullcontext() if problem else template_engine(tokens) as engine:  # it starts while jinja2 renders
        try:
            wanted = expected(text, tokens, samples)
        except ModelError as error:
            return text, [_useless(error)]
        if not any((result.text or "").strip() for result in wanted.results):
            return text, [_makes_nothing()]
        if problem:
            return text, [_not_compared(*problem)]
        assert engine is not None
        try:
            return _best(text, tokens, wanted, engine)
        except RuntimeMissing as error:
            return text, [_not_compared(error.what, error.cure or "")]


def _best(text: str, tokens: Mapping[str, str], wanted: Expected, engine: TemplateEngine) -> tuple[str, list[Notice]]:
    """The form that the engine gets most conversations right with. Raises RuntimeMissing where it does not start."""
    chosen = text
    first = best = wanted.differences(engine, text)
    for thorough in (False, True):
        rewritten = rewritten_template(text, tokens, thorough) if best else None
        if rewritten and means_the_same(rewritten, tokens, wanted):
            differences = wanted.differences(engine, rewritten)
            if len(differences) < len(best):
                chosen, best = rewritten, differences
    return chosen, _notices(first, best, wanted)


def _notices(first: Sequence[Difference], best: Sequence[Difference], wanted: Expected) -> list[Notice]:
    notices = []
    if len(best) < len(first):
        notices.append(_rewritten(_count(first, wanted), len(best)))
    if best:
        notices.append(_different(_count(best, wanted), min(best, key=_length)))
    return notices


def _count(differences: Sequence[Difference], wanted: Expected) -> str:
    return f"{len(differences)} of {len(wanted.conversations)} sample conversations"


def _length(difference: Difference) -> int:
    return len(difference.expected or "")


def _useless(error: ModelError) -> Notice:
    return Notice(
        ABOUT, "has no effect", f"no prompt can be made with it: {error.what}",
        "`drupe generate` continues texts; for conversations, write a template that works into chat_template.jinja",
    )  # fmt: skip


def _makes_nothing() -> Notice:
    return Notice(
        ABOUT, "has no effect", "it makes an empty prompt of every sample conversation, in transformers too",
        "`drupe generate` continues texts; for conversations, write a template that works into chat_template.jinja",
    )  # fmt: skip


def _not_compared(reason: str, cure: str) -> Notice:
    return Notice(
        ABOUT, "not compared",
        f"{reason}, so it was not tried whether onnxruntime-genai's template engine makes the right prompts",
        f"{cure}, then make the package again; or {IN_A_SCRIPT}",
    )  # fmt: skip


def _rewritten(count: str, left: int) -> Notice:
    return Notice(
        ABOUT, "rewritten",
        f"onnxruntime-genai's template engine renders {count} differently from jinja2, and {left or 'none'} of them "
        "with the rewritten template in tokenizer_config.json; chat_template.jinja holds the original",
    )  # fmt: skip


def _different(count: str, example: Difference) -> Notice:
    return Notice(
        ABOUT, "served by Drupe only",
        f"onnxruntime-genai's template engine renders {count} differently from jinja2, for example "
        f"{example.conversation.name!r}: {_in_short(example)}",
        IN_A_SCRIPT,
    )  # fmt: skip


def _in_short(example: Difference) -> str:
    """What is different, in a few words."""
    if example.expected is None:
        return f"{_excerpt(example.given.text or '', 0)} where the template refuses"
    if example.given.text is None:
        return f"it fails with {example.given.error!r}"
    pairs = itertools.zip_longest(example.expected, example.given.text)
    at = next(at for at, (expected, given) in enumerate(pairs) if expected != given)
    return f"{_excerpt(example.given.text, at)} for {_excerpt(example.expected, at)}"


def _excerpt(text: str, at: int) -> str:
    start = max(0, at - 10)
    return repr(("…" if start else "") + text[start : start + EXCERPT] + ("…" if len(text) > start + EXCERPT else ""))
