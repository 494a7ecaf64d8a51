"""`tutti models`: cards of models (list, show, set, alias, remove), and what is done to models on nodes as durable jobs (pull, ...)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError

from infra.cli.cluster import Cluster, with_cluster
from infra.cli.declarations import of_kind
from infra.cli.exits import CommandExit, Exit
from infra.cli.output import AS_JSON, emit_json, emit_table, size
from infra.cli.rest import Api, api, part
from shared.agents.beliefs import Beliefs
from shared.clock import SystemClock
from shared.contracts.agents import Belief
from shared.contracts.base import ModelName, PriorityClass
from shared.contracts.beliefs import FORGOTTEN, KIND, Forgotten
from shared.contracts.headers import envelope
from shared.contracts.tasks import Action
from shared.errors import TuttiError
from shared.kafka.port import Message
from shared.model_names import canonical, spelling
from shared.processing.registry import registry_key, told

LOOK_SECONDS = 1.0
_ABOUT = {
    Action.PULL: "Pull MODEL to nodes: one copy, unless it is said where. A pull that broke goes on where it was.",
    Action.DELETE: "Delete MODEL from nodes: all that have it, unless it is said where.",
    Action.LOAD: "Load MODEL into memory: on one node, unless it is said where.",
    Action.UNLOAD: "Unload MODEL, wherever it is loaded unless it is said where.",
    Action.PIN: "Load MODEL and keep it in memory: on one node, unless it is said where.",
    Action.UNPIN: "Let MODEL go when it is not used.",
}
_OPTIONS = (
    click.option("--node", "nodes", multiple=True, help="On this node; may be given more than once."),
    click.option("--tag", "tags", multiple=True, help="On all nodes with this tag; of several with all of them."),
    click.option("--copies", type=click.IntRange(1, 256), help="On so many nodes: those that have it, then those with most room."),
    click.option("--all", "everywhere", is_flag=True, help="On all nodes that can."),
    click.option("--size", "size_bytes", type=click.IntRange(1), help="Bytes of a model that no node has yet: disks are looked at."),
    click.option("--class", "priority", type=click.Choice([c.value for c in PriorityClass]), help="Priority class of the job."),
    click.option("--detach", is_flag=True, help="Print the job's id, and do not wait for its end."),
    click.option("--json", "as_json", is_flag=True, help="Print the job as JSON."),
)

models = of_kind("card")
models.help = "What is known of models, and what is done to them on nodes."


def _placed(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _done(action: Action) -> click.Command:
    @click.command(action.value, help=_ABOUT[action])
    @click.argument("model")
    @_placed
    def command(model: str, **given: Any) -> None:
        _run(action, model, **given)

    return command


@models.command()
@click.argument("model")
@click.argument("name")
@_placed
def copy(model: str, name: str, **given: Any) -> None:
    """Give MODEL another NAME, on all nodes that have it unless it is said where."""
    _run(Action.COPY, model, to=name, **given)


@models.command()
@AS_JSON
def copies(*, as_json: bool) -> None:
    """Models that are to be in memory on so many nodes, as their cards ask for, and on how many they are."""
    found = asyncio.run(_copies())
    if as_json:
        emit_json(found)
        return
    rows = [(one["model"], one["wanted"], len(one["in_memory"]), ", ".join(one["in_memory"]), ", ".join(one["on_disk"])) for one in found]
    emit_table(("model", "wanted", "there", "in memory on", "only on disk of"), rows, empty="no card asks for copies")


async def _copies() -> list[dict[str, Any]]:
    found = []
    async with api() as connection:
        cards = [
            await connection.call("GET", f"/v1/cards/{part(one['name'])}") for one in (await connection.call("GET", "/v1/cards"))["cards"]
        ]
        nodes = (await connection.call("GET", "/v1/nodes"))["nodes"]
    for card in (one["card"] for one in cards if one["card"].get("copies")):
        has = {
            node["id"]: model
            for node in nodes
            if node["state"] == "live"
            for model in node["models"]
            if spelling(card["model"], [model["name"]])
        }
        there = {
            resident: sorted(node for node, model in has.items() if bool(model.get("resident")) is resident) for resident in (True, False)
        }
        found.append({"model": card["model"], "wanted": card["copies"], "in_memory": there[True], "on_disk": there[False]})
    return found


for _action in _ABOUT:
    models.add_command(_done(_action))


@models.command()
@click.option("--forget", metavar="MODEL", help="Forget what was learned of MODEL, which is another one by now; `all`: of all models.")
@AS_JSON
@click.pass_context
def beliefs(context: click.Context, *, forget: str | None, as_json: bool) -> None:
    """How often judges (gates, critics, cascades, reviews) found a model's answers good, by kind of what was asked, what is old fading.

    Out of what the planners tell of it on Kafka, some seconds old.
    """
    if forget is not None:
        _check_name(forget)
        with_cluster(context, lambda cluster: _forget(cluster, None if forget == "all" else canonical(forget)))
        click.echo(f"{forget}: forgotten")
        return
    found = with_cluster(context, _believed)
    if as_json:
        emit_json([{"model": model, "kind": kind, **belief.model_dump()} for model, kind, belief in found])
        return
    rows = [(model, kind, seen.good + seen.bad, f"{seen.good / (seen.good + seen.bad or 1.0):.0%}") for model, kind, seen in found]
    emit_table(("model", "kind", "verdicts", "good"), rows, empty="no judge has said anything of a model's answer")


def _check_name(model: str) -> None:
    try:
        TypeAdapter(ModelName).validate_python(model)
    except ValidationError:
        raise CommandExit(Exit.USAGE, "that is no model's name") from None


async def _believed(cluster: Cluster) -> list[tuple[str, str, Belief]]:
    known = Beliefs()
    async for record in cluster.read_all(cluster.topics.registry):
        with suppress(TuttiError, ValueError):  # the planners pass it over, too
            told(record, known.kinds)
    return [(model, kind, belief) for model in known.models() for kind, belief in sorted(known.of("", model).items())]


async def _forget(cluster: Cluster, model: str | None) -> None:
    await cluster.tell("forget", KIND, model or "all")
    entry = Forgotten(at=cluster.clock.wall()).to_bytes()
    key = registry_key(KIND, FORGOTTEN if model is None else f"{FORGOTTEN}:{model}")
    producer = await cluster.connected(cluster.log.producer(client_id="tutti-cli"))
    try:
        await cluster.connected(producer.send(Message(cluster.topics.registry, entry, key, 0, envelope(FORGOTTEN))))
    finally:
        await producer.close()


def _run(action: Action, model: str, *, everywhere: bool, priority: str | None, detach: bool, as_json: bool, **given: Any) -> None:
    asked = {name: value for name, value in given.items() if value not in (None, ())} | ({"all": True} if everywhere else {})
    order = {"action": action.value, "model": model, **asked, **({"class": priority} if priority else {})}
    job = asyncio.run(_asked(order, quiet=as_json, wait=not detach))
    if as_json:
        emit_json(job)
    elif detach:
        click.echo(job["id"])
    result = job.get("result")
    if result is None:
        return
    if result["status"] != "succeeded":
        raise CommandExit(Exit.FAILED, result["failure"]["message"] if result.get("failure") else f"the job was {result['status']}")
    if not as_json:
        click.echo(result["answer"]["text"])


async def _asked(order: dict[str, Any], *, quiet: bool, wait: bool) -> dict[str, Any]:
    """The job: as it was queued, or as it ended."""
    async with api() as connection:
        queued: dict[str, Any] = await connection.call("POST", "/v1/model-tasks", order)
        if not quiet:
            click.echo(f"{queued['id']}: on {', '.join(target['node'] for target in queued['nodes'])}", err=True)
        return await _followed(connection, queued["id"], quiet=quiet) if wait else queued


async def _followed(connection: Api, job: str, *, quiet: bool) -> dict[str, Any]:
    told = ""
    while True:
        status = await connection.status(job)
        if status["state"] == "settled":
            return status
        now = "; ".join(line for step in status.get("steps", ()) if (line := _line(step)))
        if now != told and not quiet:
            click.echo(now, err=True)
        told = now
        await SystemClock().sleep(LOOK_SECONDS)


def _line(step: dict[str, Any]) -> str:
    """How far a node is, or what it waits for."""
    progress = step.get("progress") or {}
    if missing := step.get("missing"):
        return f"waits for {', '.join(missing)}"
    if not progress:
        return ""
    share = f" {size(progress['completed'])} of {size(progress['total'])}" if progress.get("total") else ""
    return f"{progress.get('node', '')}: {progress['status']}{share}"
