"""comparing: what jinja2 and onnxruntime-genai's engine make of the same chat template and conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from drupe.api import ModelError, Record
from drupe_onnxruntime.genai.templates.engine import Rendered, TemplateEngine
from drupe_tokenization import Conversation, TemplateRefusal, render

REFUSED = Rendered(None, "refused")


class Difference(Record):
    """A conversation that the engine renders differently. expected: what jinja2 gives, None where it refuses."""

    conversation: Conversation
    expected: str | None
    given: Rendered


class Expected(Record):
    """The conversations that a template is made for, and what jinja2 makes of each."""

    conversations: Sequence[Conversation]
    results: Sequence[Rendered]

    def differences(self, engine: TemplateEngine, template: str) -> list[Difference]:
        """Where the engine gives something else for the template; where jinja2 refuses, an error is right."""
        given = engine.render(template, self.conversations)
        return [
            Difference(conversation, expected.text, made)
            for conversation, expected, made in zip(self.conversations, self.results, given, strict=True)
            if expected.text != made.text
        ]


def expected(template: str, tokens: Mapping[str, str], conversations: Sequence[Conversation]) -> Expected:
    """What jinja2 makes of the conversations.

    A conversation for which the template is not made is left out, because no answer is the right one: one on which it
    fails without refusing it, and one whose content it shows as Python code. Raises ModelError where none is left.
    """
    pairs: list[tuple[Conversation, Rendered]] = []
    failure: ModelError | None = None
    for conversation in conversations:
        try:
            result = rendered(template, tokens, conversation)
        except ModelError as error:
            failure = failure or error
            continue
        if not _shows_code(conversation, result):
            pairs.append((conversation, result))
    if failure and all(result.text is None for _, result in pairs):
        raise failure
    return Expected([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def _shows_code(conversation: Conversation, result: Rendered) -> bool:
    """Whether a content that consists of parts is written as Python writes a list."""
    contents = [message["content"] for message in conversation.messages]
    return any(isinstance(content, list) and str(content) in (result.text or "") for content in contents)


def rendered(template: str, tokens: Mapping[str, str], conversation: Conversation) -> Rendered:
    """What jinja2 makes of one conversation. Raises ModelError where the template fails."""
    try:
        settings = {**tokens, "add_generation_prompt": conversation.add_generation_prompt}
        text = render(template, conversation.messages, conversation.tools, settings)
    except TemplateRefusal:
        return REFUSED
    return Rendered(text)


def means_the_same(template: str, tokens: Mapping[str, str], expected: Expected) -> bool:
    """Whether jinja2 gives the same for a rewritten template."""
    try:
        return all(
            rendered(template, tokens, conversation) == result
            for conversation, result in zip(expected.conversations, expected.results, strict=True)
        )
    except ModelError:
        return False
