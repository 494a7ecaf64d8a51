"""`tutti prompts`, `tutti agents`, `tutti profiles`: what patterns use by name, in versions with aliases, through the ingress."""

from __future__ import annotations

from typing import Any

import click
import yaml
from pydantic import ValidationError

from infra.cli.exits import CommandExit, Exit
from infra.cli.output import emit_json, emit_table, moment
from infra.cli.rest import called, part
from shared.agents.table import KINDS
from shared.agents.templates import variables_of
from shared.contracts.bounds import explain

_JSON = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
_TEXT = {"prompt": "template", "agent": "system"}
"""Kind → the field that TEXT is."""


def of_kind(kind: str) -> click.Group:
    """The commands that all kinds have."""
    group = click.Group(f"{kind}s", help=f"List, show and declare {kind}s; move their aliases.")
    for command in (_list(kind), _show(kind), _set(kind), _alias(kind), _remove(kind), *([_render(kind)] if kind in _TEXT else [])):
        group.add_command(command)
    return group


def _list(kind: str) -> click.Command:
    @click.command("list")
    @_JSON
    def list_(*, as_json: bool) -> None:
        """All names, each with its latest version."""
        found = called("GET", f"/v1/{kind}s")[f"{kind}s"]
        if as_json:
            emit_json(found)
            return
        rows = [(f["name"], f["version"], "built in" if f["built_in"] else "declared", f["about"]) for f in found]
        emit_table((kind, "version", "", "about"), rows, empty=f"no {kind} is declared")

    return list_


def _show(kind: str) -> click.Command:
    @click.command()
    @click.argument("reference")
    @click.option("--versions", is_flag=True, help="All versions, and where aliases point and pointed.")
    @_JSON
    def show(reference: str, *, versions: bool, as_json: bool) -> None:
        """What REFERENCE (name, name@alias, name@version) stands for."""
        found = called("GET", f"/v1/{kind}s/{part(reference)}" + ("/versions" if versions else ""))
        if as_json:
            emit_json(found)
        elif versions:
            emit_table(("version", "aliases", "about"), [(v["version"], ", ".join(v["aliases"]), v["about"]) for v in found["versions"]])
            click.echo()
            rows = [(a, m["version"], moment(m["at"]), ", ".join(m["earlier"])) for a, m in found["aliases"].items()]
            emit_table(("alias", "version", "since", "before"), rows)
        else:
            click.echo(f"# {found['name']}@{found['version']} ({', '.join(found['aliases'])})")
            click.echo(yaml.safe_dump(found[kind], sort_keys=False, allow_unicode=True, width=120), nl=False)

    return show


def _set(kind: str) -> click.Command:
    @click.command("set")
    @click.argument("name")
    @click.argument("text", required=False)
    @click.option("--about", help="What it is for.")
    @click.option("--file", "body", type=click.File("rb"), help="The content as YAML or JSON; `-` reads standard input.")
    def set_(name: str, text: str | None, about: str | None, body: Any) -> None:
        """Declare NAME: TEXT is a prompt's template (its variables are found), or what an agent is told first; all else is in --file."""
        given = _read(body.read()) if body is not None else {}
        if text is not None:
            if kind not in _TEXT:
                raise click.UsageError(f"a {kind} has no text: give --file")
            given[_TEXT[kind]] = text
            if kind == "prompt":
                given["variables"] = list(variables_of(text))
        given |= {} if about is None else {"about": about}
        try:
            KINDS[kind].model_validate(given)
        except ValidationError as error:
            raise CommandExit(Exit.USAGE, explain(error, kind, KINDS[kind].model_fields)) from None
        found = called("PUT", f"/v1/{kind}s/{part(name)}", given)
        click.echo(f"{name}: version {found['version']} is latest")

    return set_


def _alias(kind: str) -> click.Command:
    @click.command()
    @click.argument("name")
    @click.argument("alias")
    @click.argument("version")
    def alias(name: str, alias: str, version: str) -> None:
        """Point ALIAS of NAME to VERSION, or to where another alias points."""
        found = called("PUT", f"/v1/{kind}s/{part(name)}/aliases/{part(alias)}", {"version": version})
        click.echo(f"{name}@{alias}: version {found['version']}")

    return alias


def _remove(kind: str) -> click.Command:
    @click.command()
    @click.argument("name")
    def remove(name: str) -> None:
        """Remove NAME with all its versions; what is built in is there again, and jobs keep what they have."""
        called("DELETE", f"/v1/{kind}s/{part(name)}")
        click.echo(f"{name}: removed")

    return remove


def _render(kind: str) -> click.Command:
    @click.command()
    @click.argument("reference")
    @click.argument("variables", nargs=-1, metavar="[NAME=VALUE]...")
    @_JSON
    def render(reference: str, variables: tuple[str, ...], *, as_json: bool) -> None:
        """The text that a model is given for REFERENCE. A variable named more than once is a list."""
        values: dict[str, Any] = {}
        for variable in variables:
            name, equals, value = variable.partition("=")
            if not equals:
                raise click.UsageError(f"{name} is no NAME=VALUE")
            before = values.get(name)
            values[name] = value if before is None else [*([before] if isinstance(before, str) else before), value]
        found = called("POST", f"/v1/{kind}s/{part(reference)}/render", {"variables": values})
        if as_json:
            emit_json(found)
            return
        click.echo(found["text"])
        click.echo(f"about {found['estimated_tokens']} tokens, {found['name']}@{found['version']}", err=True)

    return render


def _read(text: bytes) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise CommandExit(Exit.USAGE, "the file is neither YAML nor JSON") from None
    if not isinstance(found, dict):
        raise CommandExit(Exit.USAGE, "the file must hold one object")
    return found


prompts, agents, profiles = of_kind("prompt"), of_kind("agent"), of_kind("profile")
