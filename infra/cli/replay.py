"""`tutti jobs replay`: a job as its history has it, run again; or another job from one of its steps on, or with another model.

The history is read from Kafka, as an operator may; a new job goes through the ingress, whose key must be its tenant's or an
administrator's.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from infra.cli.answer import AnswerEnd
from infra.cli.cluster import Cluster, with_cluster
from infra.cli.exits import CommandExit, Exit
from infra.cli.output import AS_JSON, emit_json, emit_table
from infra.cli.replaying import Replayed, asked_again, history_of, replayed, whole_answer
from infra.cli.rest import api, follow
from shared.contracts import ids
from shared.contracts.base import INLINE_BYTES
from shared.contracts.bounds import explain
from shared.contracts.chat import Answer
from shared.contracts.job import Job
from shared.contracts.result import Result
from shared.patterns import load
from shared.patterns.fork import FORK, StepEnd

_SHOWN = 60
"""Characters of an end in the table."""


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--tenant", default=ids.DEFAULT_TENANT, show_default=True, help="Whose job it is.")
@click.option(
    "--fork", type=click.IntRange(min=0), metavar="K", help="A new job: the first K ends are those of history, the rest is asked."
)
@click.option(
    "--answer",
    "answer_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Of a fork: text of the K-th answer instead.",
)
@click.option("--prompt", help="Of a fork: words of the first step that is asked, instead of its last message.")
@click.option("--model", help="A new job: the same, or its rest, of this model.")
@click.option("--timeout", "seconds", type=click.FloatRange(min=0.1), default=600.0, show_default=True, help="Seconds to wait for it.")
@AS_JSON
@click.pass_context
def replay(context: click.Context, /, job_id: str, tenant: str, seconds: float, *, as_json: bool, **what: Any) -> None:
    """Run job ID again as its history has it: the same asks, the same answer, or the differences. Exits with 1 where there are any."""
    if what["fork"] is None and (what["answer_file"] or what["prompt"]):
        raise CommandExit(Exit.USAGE, "--answer and --prompt are of a fork: --fork K says from where on")
    if what["fork"] is None and what["model"] is None:
        context.exit(int(with_cluster(context, lambda cluster: _exactly(cluster, tenant, job_id, as_json=as_json))))
    file = what.pop("answer_file")
    what["answer"] = None if file is None else file.read_text(encoding="utf-8")
    found, job = with_cluster(context, lambda cluster: _job(cluster, tenant, job_id, **what))
    result = asyncio.run(_submitted(job, found, seconds))
    before = None if found.settled is None else found.settled.result
    _show_both(before, result, as_json=as_json)


async def _exactly(cluster: Cluster, tenant: str, job_id: str, *, as_json: bool) -> Exit:
    found = await _found(cluster, tenant, job_id)
    rows = [(number, one.end.path, one.agent or "-", one.node or "-", _end(one.end)) for number, one in enumerate(found.ends, 1)]
    if as_json:
        steps = [dict(zip(("number", "path", "agent", "node", "end"), row, strict=True)) for row in rows]
        emit_json(
            {"job": job_id, "asked": found.asked, "ended": found.settled is not None, "ends": steps, "differences": found.differences}
        )
    else:
        emit_table(("k", "path", "agent", "node", "end"), rows, empty="no step has ended")
        for difference in found.differences:
            click.echo(f"differs: {difference}")
        if not found.differences:
            click.echo(f"as in history: {found.asked} steps asked for" + ("" if found.settled is None else ", the same end"))
    return Exit.FAILED if found.differences else Exit.OK


async def _found(cluster: Cluster, tenant: str, job_id: str) -> Replayed:
    return replayed(await history_of(cluster, tenant, job_id), load(cluster.settings.patterns))


def _end(end: StepEnd) -> str:
    if end.failure is not None:
        return f"failed: {end.failure.kind.value}"
    if end.decision is not None:
        return end.decision.verdict
    if end.answer is None:
        return "waited"
    text = end.answer.text if end.answer.blob is None else f"{end.answer.blob.size} bytes"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


async def _job(
    cluster: Cluster, tenant: str, job_id: str, *, fork: int | None, answer: str | None, prompt: str | None, model: str | None
) -> tuple[Replayed, Job]:
    """What is to be asked. Raises CommandExit."""
    found = await _found(cluster, tenant, job_id)
    request = found.accepted.request
    if request.conversation is not None:
        raise CommandExit(Exit.USAGE, "a job of a conversation reads what was said before it: a new job would read what is said by now")
    other: dict[str, Any] = {} if model is None else {"model": model, "fallback_models": ()}
    try:
        if fork is None:
            return found, await asked_again(cluster, request, **other)
        if found.differences or fork > len(found.ends):
            raise CommandExit(Exit.USAGE, "; ".join(found.differences) or f"of {job_id} {len(found.ends)} steps have ended")
        ends = [await _whole(cluster, tenant, one.end) for one in found.ends[:fork]]
        if answer is not None:
            if not ends or ends[-1].answer is None:
                raise CommandExit(Exit.USAGE, "--answer stands for the K-th answer: there is none")
            ends[-1] = ends[-1].model_copy(update={"answer": Answer(text=answer, model=ends[-1].answer.model)})
        given = {
            "of": found.accepted.job,
            "pattern": request.pattern, "version": found.accepted.pattern_version, "given": from_json(to_json(request.pattern_input)),
            "ends": [end.model_dump(mode="json", exclude_none=True, exclude_defaults=True) | {"path": end.path} for end in ends],
            **({} if prompt is None else {"prompt": prompt}),
        }  # fmt: skip
        job = await asked_again(cluster, request, pattern=FORK.name, input=given, chain=(), **other)
        FORK.read(job)
    except ValidationError as error:
        raise CommandExit(Exit.USAGE, explain(error, "job")) from None
    if len(job.record()) > INLINE_BYTES:
        raise CommandExit(
            Exit.USAGE, f"with {fork} ends it has {len(job.record())} bytes; a record holds at most {INLINE_BYTES}: fork earlier"
        )
    return found, job


async def _whole(cluster: Cluster, tenant: str, end: StepEnd) -> StepEnd:
    return end if end.answer is None else end.model_copy(update={"answer": await whole_answer(cluster, tenant, end.answer)})


async def _submitted(job: Job, found: Replayed, seconds: float) -> Result:
    async with api(tenant=job.tenant) as connection:
        identifier = await connection.submit(job, found.accepted.priority_class)
        click.echo(f"{identifier} runs", err=True)
        try:
            async with asyncio.timeout(seconds):
                async for update in follow(connection, identifier):
                    if isinstance(update, AnswerEnd):
                        return update.result
        except TimeoutError:
            raise CommandExit(Exit.TIMEOUT, f"no end after {seconds:g} s; `tutti jobs get {identifier}` tells it") from None
    raise CommandExit(Exit.UNREACHABLE, f"the event stream ended before the job did; `tutti jobs get {identifier}` tells its end")


def _show_both(before: Result | None, now: Result, *, as_json: bool) -> None:
    both = {"before": before, "now": now}
    if as_json:
        emit_json({name: None if one is None else one.model_dump(mode="json", exclude_none=True) for name, one in both.items()})
        return
    emit_table(
        ("", "job", "status", "model", "steps", "calls", "prompt", "completion", "wasted", "cost", "seconds"),
        [(name, *_figures(one)) for name, one in both.items() if one is not None],
    )
    texts = {name: one.answer.text for name, one in both.items() if one is not None and one.answer is not None}
    if len(texts) == 2 and texts["before"] == texts["now"]:
        click.echo(f"\nboth answer:\n{texts['now']}")
        return
    for name, text in texts.items():
        click.echo(f"\n{name}:\n{text}")


def _figures(result: Result) -> tuple[Any, ...]:
    usage, model = result.usage, None if result.answer is None else result.answer.model
    return (
        ids.public(result.job), result.status.value, model, result.steps, usage.calls, usage.prompt_tokens, usage.completion_tokens,
        usage.wasted_tokens, f"{usage.cost:.6f}".rstrip("0").rstrip("."), f"{result.finished_at - result.accepted_at:.2f}",
    )  # fmt: skip
