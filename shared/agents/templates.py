"""Templates of prompts: a small part of Jinja2, checked when a prompt is declared and again when it is rendered.

A template has text, `{{ name }}`, `{% if name %}` (also `name == "x"`, `and`, `or`, `not`), `{% for item in names %}` (with `loop.index`,
`loop.first`, `loop.last`), and the filters `join` and `length`. Values are texts and lists of texts; they are put in once and never read as
templates. All else is refused, so that neither time nor size can exceed what the bounds below give: no calls, no attributes, no arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, nodes
from jinja2 import Template as Compiled
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.contracts.agents import PinnedPrompt, Prompt
from shared.errors import InvalidInput, TooLarge

Value = str | Sequence[str]
MOST_CHARACTERS = 200_000
"""Of what is rendered, and of all values together."""
MOST_ITEMS = 256
"""Of a list."""
_MOST_NODES, _MOST_DEPTH, _SEPARATOR = 500, 16, 16
"""Of a template: its parts, how deep they are nested; the characters between two items that are joined. With one loop at most around a
part, at most `_MOST_NODES * MOST_ITEMS` of them are evaluated, and none takes longer than its value is."""
_ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.If, nodes.For, nodes.CondExpr, nodes.And, nodes.Or,
    nodes.Not, nodes.Compare, nodes.Operand, nodes.Filter, nodes.Getattr,
)  # fmt: skip
_OF_A_LOOP = frozenset({"index", "first", "last"})
_RESERVED = frozenset({"loop", "self", "super", "caller", "varargs", "kwargs"})
"""Names that Jinja2 gives a meaning of its own."""


def _no_template(why: str) -> InvalidInput:
    return InvalidInput(why, code="invalid_template", param="template")


def wrong_variables(why: str) -> InvalidInput:
    """The values are not those that the prompt needs."""
    return InvalidInput(why, code="invalid_variables", param="variables")


def _printed(value: Any) -> Any:
    if isinstance(value, str | int | StrictUndefined):
        return value
    raise wrong_variables("a list cannot be printed as it is: it is looped over, or joined")


_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, finalize=_printed, keep_trailing_newline=True, cache_size=0)
_ENVIRONMENT.globals.clear()
_ENVIRONMENT.tests.clear()
_ENVIRONMENT.filters = {name: _ENVIRONMENT.filters[name] for name in ("join", "length")}


def check_prompt(prompt: Prompt | PinnedPrompt) -> None:
    """Raises InvalidInput: it is no template, uses what is not offered, or names other variables than are declared."""
    named = set(_compiled(prompt.template)[1])
    declared = set(prompt.variables)
    if missing := sorted(named - declared):
        raise _no_template(f"the template names {', '.join(missing)}, which `variables` does not declare")
    if unused := sorted(declared - named):
        raise _no_template(f"`variables` declares {', '.join(unused)}, which the template does not name")


def variables_of(template: str) -> tuple[str, ...]:
    """The names that the template needs, by alphabet. Raises InvalidInput."""
    return _compiled(template)[1]


def render(prompt: Prompt | PinnedPrompt, values: Mapping[str, Value]) -> str:
    """The text, with exactly the declared variables. Raises InvalidInput, TooLarge."""
    check_prompt(prompt)
    compiled, names, looped = _compiled(prompt.template)
    _check_values(names, looped, values)
    pieces, size = [], 0
    try:
        for piece in compiled.generate(values):
            pieces.append(piece)
            size += len(piece)
            if size > MOST_CHARACTERS:
                raise TooLarge(f"the rendered prompt would exceed {MOST_CHARACTERS} characters")
    except (TemplateError, TypeError, ValueError) as error:
        raise wrong_variables(f"the prompt cannot be rendered: {type(error).__name__}") from None
    return "".join(pieces)


def _check_values(names: tuple[str, ...], looped: frozenset[str], values: Mapping[str, Value]) -> None:
    if set(values) != set(names):
        raise wrong_variables(f"the prompt needs {', '.join(names) or 'no variables'}; given: {len(values)} values with other names")
    lists = [name for name, value in values.items() if not isinstance(value, str)]
    if wrong := sorted(looped - set(lists)):
        raise wrong_variables(f"{', '.join(wrong)} must be a list of texts: the template loops over it")
    if any(len(values[name]) > MOST_ITEMS for name in lists):
        raise TooLarge(f"a list has at most {MOST_ITEMS} items")
    if any(not isinstance(item, str) for name in lists for item in values[name]):
        raise wrong_variables("a value is a text or a list of texts")
    if sum(len(value) if isinstance(value, str) else sum(map(len, value)) for value in values.values()) > MOST_CHARACTERS:
        raise TooLarge(f"the values have more than {MOST_CHARACTERS} characters")


@lru_cache(maxsize=128)
def _compiled(template: str) -> tuple[Compiled, tuple[str, ...], frozenset[str]]:
    """The template, the names it needs, those of them that it loops over. Raises InvalidInput."""
    try:
        tree = _ENVIRONMENT.parse(template)
        looped: set[str] = set()
        _check(tree, _MOST_DEPTH, looped, in_loop=False)
        if sum(1 for _ in tree.find_all(nodes.Node)) > _MOST_NODES:
            raise _no_template(f"the template has more than {_MOST_NODES} parts")
        names = find_undeclared_variables(tree)
        if names & _RESERVED:
            raise _no_template("loop is there inside a loop only")
        return _ENVIRONMENT.from_string(template), tuple(sorted(names)), frozenset(looped & names)
    except (TemplateError, SyntaxError, ValueError, RecursionError) as error:
        line = f"line {error.lineno}: " if isinstance(error, TemplateSyntaxError) else ""
        raise _no_template(f"the template cannot be read: {line}{str(error)[:200]}") from None


def _check(node: nodes.Node, depth: int, looped: set[str], *, in_loop: bool) -> None:
    """Raises InvalidInput."""
    if depth < 0:
        raise _no_template(f"the template is nested deeper than {_MOST_DEPTH} levels")
    if not isinstance(node, _ALLOWED):
        raise _no_template(f"a template may not use {type(node).__name__}: text, names, if, one loop, join and length are what there is")
    match node:
        case nodes.For():
            if in_loop or node.recursive or node.test is not None:
                raise _no_template("a loop is a plain one, and stands in no other")
            if not isinstance(node.iter, nodes.Name) or not isinstance(node.target, nodes.Name):
                raise _no_template("a loop goes over a variable, with one name for its items")
            looped.add(node.iter.name)
            in_loop = True
        case nodes.Getattr():
            if not (isinstance(node.node, nodes.Name) and node.node.name == "loop" and in_loop and node.attr in _OF_A_LOOP):
                raise _no_template("a template may not look into values: only loop.index, loop.first and loop.last are there")
            return
        case nodes.Name() if node.name in _RESERVED:
            raise _no_template(f"{node.name} is no name for a variable")
        case nodes.Const() if not isinstance(node.value, str):
            raise _no_template("a template compares texts only")
        case nodes.Compare():
            if len(node.ops) != 1 or node.ops[0].op not in ("eq", "ne") or not isinstance(node.ops[0].expr, nodes.Const):
                raise _no_template('a comparison is `name == "text"` or `!=`')
        case nodes.Filter():
            _check_filter(node)
    for child in node.iter_child_nodes():
        _check(child, depth - 1, looped, in_loop=in_loop)


def _check_filter(node: nodes.Filter) -> None:
    separator = node.args[0].value if node.args and isinstance(node.args[0], nodes.Const) else ""
    plain = node.name in _ENVIRONMENT.filters and not node.kwargs and node.dyn_args is None and node.dyn_kwargs is None
    if not plain or not isinstance(node.node, nodes.Name) or len(node.args) > (node.name == "join"):
        raise _no_template('the filters are `name | length` and `name | join("text")`')
    if not isinstance(separator, str) or len(separator) > _SEPARATOR or (node.args and not isinstance(node.args[0], nodes.Const)):
        raise _no_template(f"what stands between joined items is a text of at most {_SEPARATOR} characters")
