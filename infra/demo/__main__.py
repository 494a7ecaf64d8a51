"""`python -m infra.demo`. Exit code 0 when all answers came, 1 otherwise."""

from __future__ import annotations

import asyncio
import os
import sys
from random import Random

import click

from infra.cli.exits import CommandExit, Program
from infra.cli.output import SIMULATED, emit_table
from infra.cli.submit import submit
from infra.demo import over_kafka, rest
from infra.demo.dashboard import picture
from infra.native import report
from infra.native.errors import StartFailed
from infra.native.report import Row
from infra.native.settings import NativeSettings
from infra.native.stack import Stack
from infra.native.waiting import now, seconds_since
from shared.contracts.result import Result, Status
from shared.errors import TuttiError

QUESTION = "What is the capital of France?"
PATTERN = "vote"
PATTERN_SECONDS = 180.0


@click.command(cls=Program)
def main() -> None:
    """The whole demo."""
    start = now()
    stack = Stack(NativeSettings(), lambda text: click.echo(f"  [{seconds_since(start):5.1f} s] {text}"))
    try:
        _run(stack)
    except (TuttiError, CommandExit) as error:
        click.echo(f"\nthe demo failed: {error.message}", err=True)
        sys.exit(1)
    click.echo(f"\nDone in {seconds_since(start):.0f} s.")


def _run(stack: Stack) -> None:
    _title("1. Everything up")
    rows = stack.up()
    simulated = any(row.simulated for row in rows)
    if simulated:
        _shout("SIMULATED: no model could be had on this machine. The answers below are made up by a simulator.")
        for remedy in filter(None, (row.remedy for row in rows)):
            click.echo(f"For a real model: {remedy}")
    url = next(row.address for row in rows if row.component == "ingress")
    mark = f"{SIMULATED} " if simulated else ""
    _title(f"2. Over REST, streamed: {QUESTION!r}")
    _over_rest(url, mark)
    _title(f"3. The same job straight onto Kafka ({stack.kafka_servers}, topic jobs.interactive)")
    _over_kafka(stack.kafka_servers, mark)
    _title(f"4. A pattern, watched as it goes on: tutti submit --watch --pattern {PATTERN} {QUESTION!r}")
    _watched(url, mark)
    _title("What is running")
    _closing(rows, url, stack.kafka_servers)
    page = next(row.address for row in rows if row.component == "sink")
    _title(f"The dashboard: {page}/")
    if (file := picture(page, stack.home.root / "dashboard.png")) is not None:
        click.echo(f"  as Chromium shows it: {file}")


def _over_rest(url: str, mark: str) -> None:
    click.echo(f"  {mark}", nl=False)
    answer = asyncio.run(rest.ask(url, QUESTION, lambda piece: click.echo(piece, nl=False)))
    click.echo(f"\n  first token after {answer.first_token_seconds * 1000:.0f} ms, complete after {answer.seconds * 1000:.0f} ms")


def _over_kafka(servers: str, mark: str) -> None:
    start = now()
    job_id = f"demo-{Random().getrandbits(48):012x}"
    result = asyncio.run(over_kafka.submit(servers, QUESTION, job_id))
    if result.status is not Status.SUCCEEDED or result.answer is None:
        raise StartFailed(f"job {job_id} ended as {result.status}: {_reason(result)}")
    click.echo(f"  {mark}{result.answer.text.strip()}")
    click.echo(f"  job {job_id}, model {result.answer.model} on node {result.answer.node}: {seconds_since(start) * 1000:.0f} ms")


def _watched(url: str, mark: str) -> None:
    """Several samples of one question and the answer that most of them give, by the command that a user would type."""
    click.echo(mark, nl=False)
    os.environ["TUTTI_URL"] = url
    code = submit.main(["--watch", "--pattern", PATTERN, "--timeout", str(PATTERN_SECONDS), QUESTION], standalone_mode=False)
    if code:
        raise StartFailed(f"the pattern {PATTERN} ended with exit code {code}; see `tutti logs`")


def _reason(result: Result) -> str:
    return result.failure.message if result.failure else "no reason given"


def _closing(rows: list[Row], url: str, servers: str) -> None:
    emit_table(report.TITLES, report.cells(rows))
    for warning in report.warnings(rows):
        click.echo(f"note: {warning}")
    kafka = "" if servers == "127.0.0.1:19092" else f"TUTTI_KAFKA_SERVERS={servers} "
    rest_url = "" if url == "http://127.0.0.1:8080" else f"TUTTI_URL={url} "
    body = '{"model": "auto", "messages": [{"role": "user", "content": "How many days are in a week?"}]}'
    tutti = ".venv/bin/tutti" if sys.prefix.endswith(".venv") else "tutti"
    _title("Try next")
    click.echo(f"  curl -N {url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'")
    click.echo(f"  {kafka}{rest_url}{tutti} submit --stream 'Write one sentence about the sea.'")
    click.echo(f"  {tutti} status        # and: {tutti} logs --follow, {tutti} down")


def _title(text: str) -> None:
    click.echo(f"\n{text}")


def _shout(text: str) -> None:
    line = "!" * (len(text) + 4)
    click.echo(f"\n{line}\n! {text} !\n{line}")


if __name__ == "__main__":
    main()
