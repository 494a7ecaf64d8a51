"""Templates: what is put in is never read again, and nothing in them costs more than the bounds say."""

from __future__ import annotations

from typing import Any

import pytest

from shared.agents.templates import MOST_CHARACTERS, MOST_ITEMS, check_prompt, render, variables_of
from shared.contracts.agents import Prompt
from shared.errors import InvalidInput, TooLarge


def rendered(template: str, **values: Any) -> str:
    return render(Prompt(template=template, variables=variables_of(template)), values)


@pytest.mark.parametrize(
    ("template", "values", "text"),
    [
        ("Dear {{ name }},\n", {"name": "Ada"}, "Dear Ada,\n"),
        ("{% if tone == 'short' %}Briefly. {% elif tone %}In a {{ tone }} tone. {% endif %}Go.", {"tone": "warm"}, "In a warm tone. Go."),
        ("{{ a if b != 'x' and not c else 'none' }}", {"a": "A", "b": "y", "c": ""}, "A"),
        ("{% for i in xs %}{{ loop.index }}. {{ i }}{% if not loop.last %}; {% endif %}{% endfor %}", {"xs": ["a", "b"]}, "1. a; 2. b"),
        ("{{ xs | join(', ') }} ({{ xs | length }})", {"xs": ["a", "b"]}, "a, b (2)"),
        ("{% for i in xs %}{{ i }}{% else %}nothing{% endfor %}", {"xs": []}, "nothing"),
        ("{# a note #}{% raw %}{{ as it is }}{% endraw %}", {}, "{{ as it is }}"),
    ],
)
def test_what_a_template_can_say(template: str, values: dict[str, Any], text: str) -> None:
    assert rendered(template, **values) == text


@pytest.mark.parametrize("value", ["{{ other }}", "{% for x in y %}", "{{ x.__class__ }}", "{# gone #}", "<b>&\"'"])
def test_a_value_is_text_whatever_is_in_it(value: str) -> None:
    """Not expanded again, not escaped; as an item of a list, too."""
    assert rendered("{{ x }}", x=value) == value
    assert rendered("{% for x in xs %}{{ x }}{% endfor %}{{ xs | join }}", xs=[value]) == value * 2


REFUSED = [
    "{{ x.__class__ }}", "{{ x.upper }}", "{{ x['a'] }}", "{{ x[0] }}", "{{ x() }}", "{{ x | attr('__class__') }}", "{{ x | upper }}",
    "{{ x * 10 }}", "{{ 'a' * 1000000000 }}", "{{ 2 ** 99 }}", "{{ x % y }}", "{{ '%9999999d' % 1 }}", "{{ x ~ x }}", "{{ x + x }}",
    "{{ -x }}", "{{ 9 }}", "{{ none }}", "{{ [x] }}", "{{ {'a': x} }}", "{{ range(9) }}", "{{ lipsum() }}", "{{ cycler('a') }}",
    "{{ self }}", "{{ super() }}", "{{ loop }}", "{{ loop.index }}", "{% for a in x %}{{ loop.cycle }}{% endfor %}",
    "{% for a in x %}{% else %}{{ loop.index }}{% endfor %}", "{% for a in x %}{% for b in x %}{% endfor %}{% endfor %}",
    "{% for a in x recursive %}{% endfor %}", "{% for a in x if a %}{% endfor %}", "{% for a, b in x %}{% endfor %}",
    "{% for a in 'abc' %}{% endfor %}", "{% for loop in x %}{% endfor %}", "{% include 'x' %}", "{% import 'x' as y %}",
    "{% from 'x' import y %}", "{% extends 'x' %}", "{% block a %}{% endblock %}", "{% macro f() %}{% endmacro %}",
    "{% call f() %}{% endcall %}", "{% set y = x %}", "{% filter upper %}x{% endfilter %}", "{% with a = x %}{% endwith %}",
    "{% if x is defined %}{% endif %}", "{% if x in y %}{% endif %}", "{% if x == y %}{% endif %}", "{% if x < 'a' %}{% endif %}",
    "{{ x | join(y) }}", "{{ x | join('" + "-" * 17 + "') }}", "{{ x | join(attribute='a') }}", "{{ x", "{% endif %}", "{% if x %}",
    "{% nothing %}", "{{ " + "(" * 5_000 + "x" + ")" * 5_000 + " }}", "{{ " + "not " * 5_000 + "x }}", "{{ " + "9" * 9_000 + " }}",
    "{% if x %}" * 200 + "{% endif %}" * 200, "{{ x }}" * 600,
]  # fmt: skip


@pytest.mark.parametrize("template", REFUSED, ids=lambda template: template[:40])
def test_all_else_is_refused_when_it_is_declared(template: str) -> None:
    """Typed, in a bounded sentence."""
    with pytest.raises(InvalidInput) as raised:
        variables_of(template)
    assert raised.value.code == "invalid_template"
    assert len(raised.value.message) < 300


def test_the_declared_variables_are_the_templates() -> None:
    """Neither more nor less; the words name them."""
    check_prompt(Prompt(template="{{ a }}{{ b }}", variables=("b", "a")))
    with pytest.raises(InvalidInput, match="names b, which"):
        check_prompt(Prompt(template="{{ a }}{{ b }}", variables=("a",)))
    with pytest.raises(InvalidInput, match="declares c, d, which"):
        check_prompt(Prompt(template="{{ a }}", variables=("a", "d", "c")))


@pytest.mark.parametrize(
    ("template", "values"),
    [
        ("{{ a }}", {}),
        ("{{ a }}", {"a": "x", "b": "secret"}),
        ("{{ a }}", {"a": ["x"]}),
        ("{% for i in a %}{{ i }}{% endfor %}", {"a": "text"}),
        ("{{ a | join }}", {"a": [1]}),
        ("{{ a | join }}", {"a": [["x"]]}),
    ],
)
def test_other_values_are_refused(template: str, values: dict[str, Any]) -> None:
    """Typed, without what was given."""
    with pytest.raises(InvalidInput) as raised:
        rendered(template, **values)
    assert "secret" not in raised.value.message


@pytest.mark.parametrize(
    ("template", "values"),
    [
        ("{{ a }}{{ a }}", {"a": "x" * (MOST_CHARACTERS // 2 + 1)}),
        ("{% for i in a %}{{ b }}{% endfor %}", {"a": ["x"] * MOST_ITEMS, "b": "y" * 1_000}),
        ("{{ a | join('----------------') }}", {"a": "x" * MOST_CHARACTERS}),
        ("{{ a }}", {"a": "x" * (MOST_CHARACTERS + 1)}),
        ("{{ a | length }}", {"a": ["x"] * (MOST_ITEMS + 1)}),
    ],
)
def test_what_would_be_too_large_is_refused(template: str, values: dict[str, Any]) -> None:
    with pytest.raises(TooLarge):
        rendered(template, **values)
