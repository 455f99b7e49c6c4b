"""What onnxruntime-genai's template engine reads wrong: the rewritten form is read as jinja2 reads the original."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from drupe.api import ModelError
from drupe_onnxruntime.genai.templates.comparing import REFUSED, rendered
from drupe_onnxruntime.genai.templates.engine import Rendered, TemplateEngine, template_engine
from drupe_onnxruntime.genai.templates.rewriting import rewritten_template
from drupe_tokenization import Conversation

TOKENS = {"bos_token": "<s>", "pad_token": "<pad>"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"properties": {}, "required": ["a"]}}}
TALK = Conversation(
    "short",
    [
        {"role": "user", "content": "hello world", "extra": {}, "none": [None]},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\n4", "reasoning_content": "hm"},
        {"role": "user", "content": "é"},
    ],
    [TOOL],
)
FIRST = "messages[0].content"
EXPRESSIONS = [
    # Text in text, and in other things
    f"'ell' in {FIRST}", f"'ell' not in {FIRST}", f"'x' not in {FIRST}", "'role' in messages[0]",
    "'role' not in messages[0]", f"messages[2].content in {FIRST}", "'' in nothing",
    "'a' is in ['a']", "messages[0].role not in ['user']", "'a' not in {'a': 1}",
    # Methods and filters of texts
    f"{FIRST} | replace('l', 'L')", f"{FIRST}.replace('l', '')", f"{FIRST}.split('l', 1)[1]",
    f"{FIRST}.split('z', 1) | length", f"{FIRST}.rsplit('l', 1)[0]", f"{FIRST}.rsplit('l')[0]",
    f"{FIRST}.partition('l')[2]", f"{FIRST}.partition('z')[2]", f"{FIRST}.rpartition('l')[0]",
    f"{FIRST}.split('o', maxsplit=1)[0]", f"{FIRST}.removeprefix('hello')", f"{FIRST}.removesuffix('d')",
    "messages[0].role | upper", "messages[0].role.upper()", f"{FIRST} | upper", "messages[0].role.lower()",
    "messages[0].role | title", "messages[0].role.title()", "messages[0].role | capitalize",
    "messages[0].role.capitalize()",
    "'aB cD' | capitalize", "messages[1].content | capitalize", "'TOOL' | title",
    "nothing | capitalize", f"{FIRST}.startswith(('x', 'h'))", f"{FIRST}.endswith(('x', 'y'))",
    f"{FIRST}.find('o')", f"{FIRST}.find('z')", f"{FIRST}.count('l')", "', '.join(['a', 'b'])", "'xax' | trim('x')",
    "messages[1].content.splitlines() | length", "'%s-%s' | format('a', 1)", "'%s!' % 'a'", "'{}-{}'.format('a', 1)",
    "'a\\nb' | indent", "'a\\nb' | indent(width=3, first=true)", "'\\u2581\\x41'", "strftime_now('%Y').strip()",
    # Tests
    "messages[0].nothing is undefined", "tools is defined", "documents is none", "documents is not none",
    "messages[0].role is sequence", "messages[0].nothing is iterable", "4 is divisibleby 2", "3 is odd", "3 is even",
    "'a' is eq 'a'", "'a' is ne('b')", "1 is lt 2", "strftime_now is defined and false", "count is defined",
    # Lists and mappings
    "messages | selectattr('role', 'ne', 'user') | list | length",
    "(messages | rejectattr('role', 'in', ['x']) | list)[0].role",
    "messages | selectattr('extra', 'defined') | list | length",
    "messages | selectattr('reasoning_content') | list | length",
    "['a', 1, ''] | select('string') | join('-')", "['a', ''] | reject | list | length", "messages[:30] | length",
    "messages[-30:] | length", "messages[30] is defined",
    "[1, 2] | first", "[] | first", "messages | reverse | list | length",
    "{'a': 1, 'b': 2}.keys() | join", "{'a': 1, 'b': 2}.values() | list", "dict(a=1).a",
    "[{'a': {'b': 1}}] | map(attribute='a.b') | join",
    "['a', 'b'] | map('upper') | join", "messages | join(',', attribute='role')",
    "[1, 2, ] | length", "{'a': 1, }['a']", "x | d('f')", "messages[0].nothing | length", "messages | count",
    # JSON
    "tools | tojson", "tools | tojson(indent=4)", "{'a': {}} | tojson(indent=2)", "'é' | tojson(ensure_ascii=False)",
    "[1, 2] | tojson(separators=(', ', ': '))",
    # Operators
    "'a' and 'b'", "'' and 'b' or 'c'", "'T' if messages[0].extra else 'F'", "'a' ~ messages[0].nothing ~ 'b'",
    "'a' ~ 'b' == 'ab'", "2 * [1, 2] | length", "-1 | abs", "1 < 2 < 3", "(nothing | string) | length",
    # Parts of texts, and none
    f"{FIRST}[0]", f"{FIRST}[-1]", "messages[0].none[0]", "[1, 2][0]", "[1, 2][-1]",
    # Names
    "pad_token", "eos_token is defined", "messages[1].thinking", "messages[1]['thinking']", "'thinking' in messages[1]",
]  # fmt: skip
TEMPLATES = [
    "{% if true %}\na\n{% endif %}\nb\n", "x\n   {% if true %}a{% endif %}\n   b", "a\n {%+ if true %}b{% endif %}",
    "a{# c #}b{#- d -#} c", "{% raw %}{{ x }}{% endraw %}", "{{ '{{' }}{{ '%}' }}{{ \"it's\" }}",
    "{% for m in messages | selectattr('extra', 'undefined') %}{{ loop.index }}{{ m.role }}{% endfor %}",
    "{% for m in messages | rejectattr('role', 'equalto', 'user') | selectattr('extra', 'undefined') %}"
    "{{ m.role }}{% endfor %}",
    "{% for m in messages | reverse %}{{ m.role }}{% endfor %}",
    "{% for m in messages %}{% if loop.first %}{% set x = 'A' %}{% endif %}{{ x }}|{% endfor %}",
    "{% set x = 'o' %}{% for m in messages %}{{ x }}{% set x = 'A' %}{{ x }}{% endfor %}{{ x }}",
    "{% set x = 'o' %}{% for m in messages %}{% for n in messages %}"
    "{% set x = x ~ 'i' %}{% endfor %}{{ x }}{% endfor %}",
    "{% for m in messages %}{% endfor %}{{ m is defined }}",
    "{% for m in messages %}{{ m.nothing or 'n' }}{% else %}e{% endfor %}",
    "{% for m in messages if m.role == 'user' %}{{ loop.length }}{% endfor %}{{ m is defined }}",
    "{% macro f(a, b) %}{{ a }}-{{ b }};{% endmacro %}{{ f('x', 'y') }}{{ f('x') }}{{ f(b='z', a='q') }}",
    "{% set a = 'outer' %}{% macro f(a) %}{% set c = 'C' %}{{ a }}{% endmacro %}{{ f('x') }}{{ a }}{{ c }}",
    "{% macro f(n) %}{% if n > 0 %}<{{ f(n - 1) }}{{ n }}>{% endif %}{% endmacro %}{{ f(3) }}",
    "{% set m_1 = 'x' %}{% for m in messages %}{{ m_1 }}{{ m.role }}{% endfor %}",
    "{% macro f() %}x{% endmacro %}{{ f() | length }}", "{% set last = true %}{{ last }}{{ [1, 2] | last }}",
    "{% set x | trim %}  a {% endset %}{{ x }}", "{% filter replace('a', 'b') %}a{{ 1 }}{% endfilter %}",
    "{% with x = 1, y = 2 %}{{ x + y }}{% endwith %}{{ x is defined }}",
    "{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %}{% endfor %}",
    "{% for m in messages %}{{ messages[loop.index0 + 1].role if messages[loop.index0 + 1] }}{% endfor %}",
    "{% if messages | selectattr('extra', 'defined') | list %}y{% elif messages | select('string') | list %}"
    "z{% endif %}",
    "{% for m in messages %}{% if loop.index0 == 1 %}{% continue %}{% endif %}{{ m.role }}{% break %}{% endfor %}",
]  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> Iterator[TemplateEngine]:
    pytest.importorskip("onnxruntime_genai")
    with template_engine(TOKENS) as made:
        yield made


def by_jinja(template: str) -> Rendered:
    return rendered(template, TOKENS, TALK)


@pytest.mark.parametrize("template", [*("{{ " + each + " }}" for each in EXPRESSIONS), *TEMPLATES])
def test_a_rewritten_template_is_read_by_the_engine_as_jinja2_reads_the_original(
    engine: TemplateEngine, template: str
) -> None:
    expected = by_jinja(template)
    assert expected.text is not None
    forms = [rewritten_template(template, TOKENS, thorough) for thorough in (False, True)]
    assert all(form is not None and by_jinja(form) == expected for form in forms)
    assert expected in [engine.render(form, [TALK])[0] for form in forms if form]


def test_the_engine_still_reads_most_of_them_otherwise(engine: TemplateEngine) -> None:
    """Rules that the engine no longer needs can go."""
    templates = [*("{{ " + each + " }}" for each in EXPRESSIONS), *TEMPLATES]
    alike = [each for each in templates if engine.render(each, [TALK])[0] == by_jinja(each)]
    assert len(alike) < len(templates) // 4


@pytest.mark.parametrize("template", ["{% macro f() %}{{ caller() }}{% endmacro %}{% call f() %}x{% endcall %}"])
def test_what_has_no_form_for_the_engine_is_not_rewritten(template: str) -> None:
    assert rewritten_template(template, TOKENS, thorough=True) is None


def test_a_refusal_stays_one(engine: TemplateEngine) -> None:
    template = "{% if 'ell' in messages[0].content %}{{ raise_exception('no') }}{% endif %}"
    form = rewritten_template(template, TOKENS, thorough=False)
    assert form is not None
    assert by_jinja(form) == by_jinja(template) == REFUSED
    assert engine.render(form, [TALK])[0].text is None


def test_a_long_template_is_read_faster_when_it_is_rewritten(engine: TemplateEngine) -> None:
    """The engine's parser takes the square of the length; the rewritten form has comments that end its searches."""
    import time

    template = "".join(
        f"{{%- if x == {number} and not y %}}{{{{- 'a' + 'b' }}}}{{%- endif %}}" for number in range(100)
    )
    form = rewritten_template(template, TOKENS, thorough=False)
    assert form is not None

    def seconds(text: str) -> float:
        started = time.perf_counter()
        engine.render(text, [TALK])
        return time.perf_counter() - started

    assert min(seconds(form) for _ in range(3)) < min(seconds(template) for _ in range(3))


def test_a_template_that_crashes_the_engine_is_told_and_the_next_one_is_read(engine: TemplateEngine) -> None:
    crashing = "{% macro f(n) %}{% if n != 0 %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(2) }}"
    assert by_jinja(crashing).text == ""
    assert engine.render(crashing, [TALK])[0].text is None
    assert engine.render("a", [TALK])[0].text == "a"


def test_a_failing_template_is_an_error() -> None:
    with pytest.raises(ModelError, match="cannot be used"):
        by_jinja("{{ 1 / 0 }}")
