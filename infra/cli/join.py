"""`tutti join`, `tutti leave`, `tutti join-token`: this machine as a node of a cluster that is there."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import click
from pydantic import SecretStr, ValidationError

from infra.cli.cluster import Edge
from infra.cli.exits import CommandExit, Exit
from infra.native import http
from infra.native import node as nodes
from infra.native.errors import NativeError
from infra.native.join import checks, mdns, units, worker
from infra.native.join.invitation import Invitation, read_token
from infra.native.join.worker import Joined
from infra.native.node import CHOICES, ModelNode
from infra.native.paths import StackHome, locked, writing
from infra.native.settings import NativeSettings
from infra.native.waiting import wait_until
from shared.clock import SystemClock
from shared.contracts.base import DAY_SECONDS
from shared.contracts.node import YIELDS
from shared.errors import Conflict, InvalidInput, NotFound, TuttiError
from shared.settings import ClusterSettings, KafkaSettings
from shared.topics import Topics

READY_SECONDS = 60.0
_home = click.option(
    "--home", type=click.Path(path_type=Path), default=worker.HOME, show_default=True, help="Where the node's settings and logs lie."
)


@click.command()
@click.option("--token", envvar="TUTTI_JOIN_TOKEN", help="From `tutti join-token`; `-` reads it from standard input, @FILE from a file.")
@click.option("--cluster", help="Of several clusters on this network the one of this name.")
@click.option("--name", default="", help="The node's name; the machine's by default.")
@click.option("--node", "model_node", type=click.Choice(CHOICES), default="running", show_default=True, help="Which models it serves.")
@click.option("--password-file", type=click.Path(path_type=Path, dir_okay=False), help="Kafka's password, where the token has none.")
@click.option("--when-idle", type=click.FloatRange(min=0), metavar="MINUTES", help="Work only when nobody has touched it for so long.")
@click.option("--dedicated", is_flag=True, help="Never yield to the machine's owner; else to programs that need processors or memory.")
@click.option("--install", is_flag=True, help="Start it with the machine: systemd or launchd.")
@_home
@click.pass_context
def join(context: click.Context, /, token: str | None, cluster: str | None, home: Path, **asked: object) -> None:
    """Make this machine a node of a cluster: with a token, or of the one that announces itself on this network.

    The worker runs beside its Ollama, which may listen on localhost only. What TUTTI_WORKER__… says here is kept in its settings.
    """
    edge, folder = context.find_object(Edge) or Edge(), StackHome(home.expanduser().resolve())
    with writing():
        folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(folder.root / "lock", wait=False):
            if (found := worker.there(folder)) is not None:
                raise Conflict(f"this machine is node {found.node} of {found.cluster} already; `tutti leave` ends that")
            kind = units.kind_here() if asked["install"] else None
            try:
                joined, model = _prepared(edge, folder, token, cluster, asked)
                notes = _started(joined, kind)
            except (TuttiError, ValidationError, OSError):
                _undone(folder)
                raise
    click.echo(f"node {joined.node} of {joined.cluster}: {_await(joined)}; models: {', '.join(model.models) or 'none yet'} ({model.about})")
    for note in (*notes, "`tutti nodes` lists it where the cluster is, `tutti leave` ends it"):
        click.echo(f"note: {note}")


def _prepared(edge: Edge, folder: StackHome, token: str | None, cluster: str | None, asked: dict[str, object]) -> tuple[Joined, ModelNode]:
    """Everything but the start; the settings file is written last."""
    if token:
        invitation = read_token(_token(token), SystemClock().wall())
    else:
        invitation = chosen(mdns.find(interfaces=_interfaces()), cluster)
        click.echo(f"found {invitation.name}, which announces itself with Kafka at {invitation.servers}", err=True)
    password_file = asked["password_file"]
    if invitation.protocol.startswith("SASL") and not (invitation.username and (invitation.password.get_secret_value() or password_file)):
        who = "a password (--password-file)" if invitation.username else "a token with a user of Kafka (`tutti join-token --username`)"
        raise InvalidInput(f"cluster {invitation.name} asks who comes: this needs {who}")
    node = worker.node_name(str(asked["name"]))
    secrets = worker.files(folder, invitation, password_file if isinstance(password_file, Path) else None)
    asyncio.run(_checked(edge, invitation, invitation.settings(secrets), node))
    model = _models(folder, str(asked["model_node"]), install=bool(asked["install"]))
    environment = worker.settings_of(invitation, secrets, model, node) | _manners(asked)
    worker.write_environment(folder.root / "worker.env", environment)
    return Joined(folder, environment), model


def _token(given: str) -> str:
    if given == "-":
        return sys.stdin.read(200_000)
    if given.startswith("@"):
        try:
            return Path(given[1:]).read_text(encoding="utf-8")[:200_000]
        except (OSError, UnicodeError):
            raise InvalidInput(f"{given[1:]} cannot be read") from None
    return given


def _interfaces() -> list[str]:
    return [part for part in NativeSettings().mdns_interfaces.split(",") if part]


def chosen(found: list[Invitation], wanted: str | None) -> Invitation:
    """Of the clusters on this network the one that is meant. Raises NotFound, InvalidInput."""
    names = ", ".join(sorted(cluster.name for cluster in found))
    matching = [cluster for cluster in found if wanted in (None, cluster.name)]
    if not found:
        raise NotFound(
            "no cluster announces itself on this network; ask its administrator for a token (`tutti join-token`), or let it announce "
            "itself (`tutti up --announce NAME`)"
        )
    if not matching:
        raise NotFound(f"no cluster {wanted!r} announces itself on this network; there are: {names}")
    if len(matching) > 1:
        raise InvalidInput(f"several clusters announce themselves here: {names}; choose one with --cluster NAME, or use a token")
    return matching[0]


async def _checked(edge: Edge, invitation: Invitation, settings: ClusterSettings, node: str) -> None:
    log = edge.open_log(settings, edge.clock)
    try:
        await checks.check(log, Topics(settings.topics), invitation.servers, node)
    finally:
        await log.close()


def _models(folder: StackHome, kind: str, *, install: bool) -> ModelNode:
    settings = NativeSettings().model_copy(update={"node": kind, "home": folder.root})
    if install and kind != "running":
        raise NativeError(
            "--install goes with an Ollama that the machine starts by itself: install that as its service, then join beside it"
        )
    try:
        node = nodes.start(settings, lambda text: click.echo(text, err=True))
    except NativeError as error:
        hint = "start Ollama (OLLAMA_HOST says where), or serve a small model of our own with --node embedded" if kind == "running" else ""
        raise NativeError("; ".join(filter(None, (error.message, hint)))) from None
    nodes.remember(folder, node)
    return node


def _manners(asked: dict[str, object]) -> dict[str, str]:
    """How it yields, where this shell does not say otherwise: to load and short memory, unless the machine is the cluster's own."""
    if asked["dedicated"]:
        return {}
    found = {"OTHERS_LOAD": "0.5", "MEMORY_STALL": "20", "LEAST_FREE": "0.05"}
    minutes = asked["when_idle"]
    if isinstance(minutes, float | int):
        found["AWAY_SECONDS"] = str(minutes * 60)
    return {name: value for part, value in found.items() if (name := f"TUTTI_WORKER__OWNER__{part}") not in os.environ}


def _started(joined: Joined, kind: units.Kind | None) -> list[str]:
    if kind is not None:
        return units.Unit(joined, kind).install()
    joined.process().start()
    return ["it ends with the machine; `tutti join --install` would start it again"]


def _await(joined: Joined) -> str:
    """What it says of itself when it is ready, or yields to whoever uses the machine now."""
    url = joined.process().url

    def reason() -> str:
        return "ready" if http.answers(f"{url}/readyz") else http.refusal(f"{url}/readyz") or "it does not answer"

    def settled() -> bool:
        said.append(reason())
        return said[-1] == "ready" or YIELDS in said[-1]

    said: list[str] = []
    if wait_until(settled, READY_SECONDS):
        return said[-1]
    return f"not ready yet: {said[-1]} (its log: {joined.home.log('worker')})"


def _undone(folder: StackHome) -> None:
    """What was begun of a join that failed."""
    joined = worker.there(folder)
    if joined is not None:
        _ended(joined)
    for kind in nodes.STARTED_HERE:
        nodes.daemon_of(folder, kind).stop(nodes.STOP_SECONDS)
    worker.remove(folder)


def _ended(joined: Joined) -> None:
    """It offers nothing, lets what runs end or gives it back, says that it has left."""
    if (unit := units.installed(joined)) is not None:
        unit.remove()
    joined.process().stop()


@click.command()
@_home
def leave(home: Path) -> None:
    """End what `tutti join` began: the worker lets its calls end or gives them back, and leaves; settings and unit are removed."""
    folder = StackHome(home.expanduser().resolve())
    joined = worker.required(folder)
    with writing(), locked(folder.root / "lock", wait=False):
        _undone(folder)
    click.echo(f"node {joined.node} has left {joined.cluster}")


@click.command("join-token")
@click.option("--name", default="tutti", show_default=True, help="The cluster's name, for people.")
@click.option("--servers", help="Kafka's servers as other machines reach them; TUTTI_KAFKA_SERVERS by default.")
@click.option(
    "--days", type=click.FloatRange(min=0, max=3_650), default=7.0, show_default=True, help="So long it may be used; 0: for ever."
)
@click.option("--username", default="", help="Of workers in Kafka, where it asks (`tutti topics acls` says what they need).")
@click.option("--password-file", type=click.Path(path_type=Path, dir_okay=False), help="Its password: the token is as secret then.")
def join_token(name: str, servers: str | None, days: float, username: str, password_file: Path | None) -> None:
    """Print a token by which machines join this cluster: where Kafka is, its topics, who comes. Never your own credentials."""
    settings = ClusterSettings()
    try:
        token = Invitation(
            name=name,
            servers=servers or settings.kafka_servers,
            topics=settings.topics,
            protocol=settings.kafka_security_protocol,
            mechanism=settings.kafka_sasl_mechanism if username else "",
            username=username,
            password=SecretStr(_secret(password_file) if password_file else ""),
            authorities=_authorities(settings),
            expires_at=SystemClock().wall() + days * DAY_SECONDS if days else 0.0,
        )
    except ValidationError:
        raise CommandExit(Exit.USAGE, "a part of the token is too long, or no text") from None
    if all(part.strip().startswith(("127.", "localhost", "[::1]")) for part in token.servers.split(",")):
        click.echo(f"note: Kafka at {token.servers} is reached from this machine only; --servers says where others find it", err=True)
    click.echo(token.token())


def _authorities(settings: KafkaSettings) -> str:
    return _secret(Path(settings.kafka_ca_file)) if settings.kafka_ca_file else ""


def _secret(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError):
        raise CommandExit(Exit.USAGE, f"{path} cannot be read") from None
