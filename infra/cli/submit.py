"""`tutti submit`: one job, over REST or straight onto Kafka, and its answer."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from infra.cli.answer import AnswerEnd, Display, Update, exit_code
from infra.cli.cluster import Cluster, Edge, with_cluster
from infra.cli.exits import CommandExit, Exit
from infra.cli.instants import seconds_of
from services.ingress.submit import new_job_id
from shared.clock import Clock
from shared.contracts import ids
from shared.contracts.base import PriorityClass
from shared.contracts.bounds import check_capability, explain
from shared.contracts.ids import RESERVED
from shared.contracts.job import Job
from shared.errors import InvalidInput
from shared.patterns import BUILT_IN
from shared.tree import Tree

_TICK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class WaitOptions:
    """How the command waits and shows."""

    wait: bool
    stream: bool
    as_json: bool
    timeout_seconds: float
    watch: bool = False


@click.command()
@click.argument("prompt")
@click.option("--model", help="A model's name, or auto.")
@click.option("--system", help="System message.")
@click.option("--capability", help="Which agents' workers may take it: chat, research, ...")
@click.option("--pattern", help="The procedure: single, chain, ...")
@click.option(
    "--input", "input_file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="What the pattern takes: JSON or YAML."
)
@click.option("--conversation", help="What was said in it before is known to the model, and this will be.")
@click.option("--class", "priority", type=click.Choice([c.value for c in PriorityClass]), default="interactive", show_default=True)
@click.option("--tenant", help="Who asks.")
@click.option("--id", "job_id", help="Your own job id: submitting it again changes nothing.")
@click.option("--deadline", metavar="WHEN", help="30s, 5m, 2h from now, or ISO 8601 with an offset.")
@click.option("--not-before", metavar="WHEN", help="Begin then; spelled like --deadline.")
@click.option("--max-tokens", type=int, help="Longest answer.")
@click.option("--temperature", type=float, help="Sampling temperature.")
@click.option("--seed", type=int, help="Sampling seed.")
@click.option("--callback", metavar="URL", help="Who is told of its end over HTTP, signed.")
@click.option("--callback-secret", metavar="NAME", help="By which of the tenant's secrets, where not `default`.")
@click.option("--stream", is_flag=True, help="Print the answer as it comes.")
@click.option("--watch", is_flag=True, help="Draw the job's steps as a tree that grows, then print the answer.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the end, or print the job id only.")
@click.option("--timeout", "timeout_seconds", type=click.FloatRange(min=0.1), default=600.0, show_default=True, help="Seconds to wait.")
@click.option(
    "--via", type=click.Choice(["rest", "kafka"]), default="rest", show_default=True, help="The ingress (TUTTI_URL), or jobs.<class>."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON (with --stream: one JSON object a line).")
@click.pass_context
def submit(context: click.Context, /, prompt: str, **options: Any) -> None:
    """Submit PROMPT as a job and print its answer. PROMPT `-` is read from standard input."""
    if options["watch"] and (options["stream"] or not options["wait"] or options["via"] == "kafka"):
        raise CommandExit(Exit.USAGE, "--watch asks the ingress until the job ends: not with --stream, --no-wait or --via kafka")
    edge = context.find_object(Edge) or Edge()
    text = sys.stdin.read() if prompt == "-" else prompt
    job = build_job(text, options, edge.clock, "cli-" + new_job_id(edge.clock.wall(), edge.random).removeprefix("j_"))
    priority_class = PriorityClass(options["priority"])
    how = WaitOptions(options["wait"], options["stream"], options["as_json"], options["timeout_seconds"], options["watch"])
    if options["via"] == "kafka":
        code = with_cluster(context, lambda cluster: _over_kafka(cluster, job, priority_class, how))
    else:
        code = asyncio.run(_over_rest(job, priority_class, how, edge.clock))
    context.exit(int(code))


def build_job(prompt: str, fields: dict[str, Any], clock: Clock, identifier: str) -> Job:
    """The job that the options describe. Raises CommandExit (usage) when it is not valid."""
    if fields["job_id"] and ids.is_reserved(fields["job_id"]):
        raise CommandExit(Exit.USAGE, RESERVED)
    body = {
        "id": fields["job_id"] or identifier,
        "prompt": prompt,
        "stream": fields["stream"],
        "pattern": fields["pattern"],
        "capability": fields["capability"],
        "conversation": fields["conversation"],
        "input": _read_input(fields["input_file"]),
        "options": {name: fields[name] for name in ("max_tokens", "temperature", "seed") if fields[name] is not None},
        "callback": _callback(fields["callback"], fields["callback_secret"]),
        **_deadline(fields["deadline"]),
        "not_before": _moment(fields["not_before"], clock),
        **{name: fields[name] for name in ("model", "system", "tenant") if fields[name] is not None},
    }
    try:
        job = Job.model_validate({name: value for name, value in body.items() if value is not None})
        if job.pattern in BUILT_IN.current:  # an operator's own is checked where it is known
            BUILT_IN.read(job)
    except ValidationError as error:
        raise CommandExit(Exit.USAGE, explain(error, "job")) from None
    except InvalidInput as error:
        raise CommandExit(Exit.USAGE, error.message) from None
    return job


def _callback(url: str | None, secret: str | None) -> dict[str, str] | None:
    if url is None and secret is not None:
        raise CommandExit(Exit.USAGE, "--callback-secret signs what --callback names: it is missing")
    return None if url is None else {"url": url} | ({} if secret is None else {"secret": secret})


def _read_input(file: Path | None) -> dict[str, Any] | None:
    if file is None:
        return None
    import yaml

    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise CommandExit(Exit.USAGE, f"{file} is neither JSON nor YAML") from error
    if not isinstance(found, dict):
        raise CommandExit(Exit.USAGE, f"{file} must hold an object, as the pattern's input is one")
    return found


def _deadline(when: str | None) -> dict[str, float | str]:
    """A duration stays one: made an instant here, it would be another one for a cluster whose clocks differ."""
    if not when:
        return {}
    seconds = seconds_of(when, "s")
    return {"deadline_at": when} if seconds is None else {"deadline_seconds": seconds}


def _moment(when: str | None, clock: Clock) -> float | str | None:
    """Seconds since 1970 for a duration from now; anything else is left to the contract, which reads ISO 8601."""
    seconds = seconds_of(when, "s") if when else None
    return when if seconds is None else clock.wall() + seconds


async def _over_rest(job: Job, priority_class: PriorityClass, how: WaitOptions, clock: Clock) -> Exit:
    from infra.cli.rest import api, follow

    async with api(tenant=job.tenant if "tenant" in job.model_fields_set else None) as connection:
        identifier = await connection.submit(job, priority_class)
        if not how.wait:
            return _submitted(identifier, how)
        return await show(follow(connection, identifier), identifier, how, clock, partial(connection.tree, identifier))


async def _over_kafka(cluster: Cluster, job: Job, priority_class: PriorityClass, how: WaitOptions) -> Exit:
    from infra.cli.produce import send, watch

    assert job.id is not None
    try:
        check_capability(job, cluster.topics.settings.capabilities)  # its planner would bury it, and only a stream would hear of that
    except InvalidInput as error:
        raise CommandExit(Exit.USAGE, error.message) from None
    if not how.wait:
        await send(cluster, job, priority_class)
        return _submitted(job.id, how)
    async with watch(cluster, ids.qualified(job.tenant, job.id), stream=how.stream) as watching:
        await send(cluster, job, priority_class, watching.reply)
        return await show(watching.updates(), job.id, how, cluster.clock)


def _submitted(identifier: str, how: WaitOptions) -> Exit:
    click.echo(json.dumps({"job": identifier}) if how.as_json else identifier)
    return Exit.OK


async def show(
    updates: AsyncIterator[Update], identifier: str, how: WaitOptions, clock: Clock, look: Callable[[], Awaitable[Tree]] | None = None
) -> Exit:
    """Show the job's course until it ends or the time is up. `look` gives the tree, which is drawn once a tick at most."""
    display = Display(identifier, as_json=how.as_json, stream=how.stream or how.watch)
    look = look if how.watch else None
    began = drawn = clock.monotonic()
    news = False
    pending: asyncio.Future[Update] | None = None
    try:
        while clock.monotonic() - began < how.timeout_seconds:
            pending = pending or asyncio.ensure_future(anext(updates))
            done, _ = await asyncio.wait({pending}, timeout=_TICK_SECONDS)
            now = clock.monotonic()
            if look is None:
                display.waited(now - began)
            elif news and (not done or now - drawn >= _TICK_SECONDS):
                display.grown(await look())
                news, drawn = False, now
            if not done:
                continue
            update, pending, news = pending.result(), None, True
            if look is not None and isinstance(update, AnswerEnd):
                display.grown(await look())
            display.show(update)
            if isinstance(update, AnswerEnd):
                return exit_code(update.result)
    except StopAsyncIteration:
        raise CommandExit(
            Exit.UNREACHABLE, f"the event stream ended before the job did; `tutti jobs get {identifier}` tells its end"
        ) from None
    finally:
        if pending is not None:
            pending.cancel()
    raise CommandExit(Exit.TIMEOUT, f"no end after {how.timeout_seconds:g} s; the job goes on: `tutti jobs get {identifier}`")
