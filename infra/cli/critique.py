"""`tutti critique`: try checks on a file, as a critic makes them. No cluster is needed."""

from __future__ import annotations

from typing import Any, BinaryIO, get_args

import click
from pydantic import ValidationError
from pydantic_core import from_json

from infra.cli.exits import CommandExit, Exit
from infra.cli.output import AS_JSON, emit_json, emit_table
from shared.clock import SystemClock
from shared.contracts.bounds import explain
from shared.contracts.critique import CheckSet, PersonalKind
from shared.errors import InvalidInput
from shared.validators.checks import check_settings, critique
from shared.validators.scan import redacted


@click.command("critique")
@click.argument("file", type=click.File("rb"))
@click.option("--check", "checks", multiple=True, required=True, help="A check, or one with its settings as JSON: secrets, max_chars=500.")
@click.option("--document", type=click.File("rb"), multiple=True, help="What quotes, citations and support are looked up in.")
@click.option("--redact", is_flag=True, help="Print the text with what was found replaced by its kind.")
@AS_JSON
def critique_file(file: BinaryIO, checks: tuple[str, ...], document: tuple[BinaryIO, ...], *, redact: bool, as_json: bool) -> None:
    """Check a text. Exit code 1 where something is found."""
    text, clock = _text(file), SystemClock()
    began = clock.monotonic()
    try:
        asked = CheckSet.model_validate(dict(map(_named, checks)))
        check_settings(asked)
        verdict = critique([text], asked, [_text(each) for each in document])
    except ValidationError as error:
        raise CommandExit(Exit.USAGE, explain(error, "checks", CheckSet.model_fields)) from None
    except InvalidInput as error:
        raise CommandExit(Exit.USAGE, error.message) from None
    except ValueError:
        raise CommandExit(Exit.USAGE, "a check's settings are JSON: max_chars=500, 'language=[\"en\"]'") from None
    if as_json:
        emit_json(verdict.model_dump(exclude_none=True))
    elif redact:
        click.echo(redacted(text, [(each.start, each.end, each.kind or each.check) for each in verdict.findings if each.end]), nl=False)
    else:
        rows = [(each.check, each.kind, f"{each.start}-{each.end}" if each.end else "-", each.says) for each in verdict.findings]
        emit_table(("check", "kind", "characters", "found"), rows, empty=f"nothing found, in {1e3 * (clock.monotonic() - began):.1f} ms")
    if verdict.counts:
        raise SystemExit(1)


def _named(given: str) -> tuple[str, Any]:
    name, told, settings = given.partition("=")
    return name, from_json(settings) if told else list(get_args(PersonalKind)) if name == "personal_data" else True


def _text(file: BinaryIO) -> str:
    return file.read().decode("utf-8", "replace")
