"""`tutti join` and its neighbours, in front of a cluster in memory: each reason why a machine does not become a node, and what is left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from infra.cli.cluster import Edge
from infra.cli.exits import Exit
from infra.cli.main import main
from infra.lab import virtual_loop
from infra.native.join import checks, mdns
from infra.native.join.invitation import Invitation, read_token
from shared.clock import LoopClock
from shared.contracts.credits import Credits
from shared.errors import ConfigurationError, Conflict, LogUnavailable, TuttiError
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import Message, NewTopic
from shared.partitions import TopicSettings
from shared.processing.provision import ensure_topics
from shared.topics import Topics

TOPICS = Topics()
SERVERS = "kafka.lan:9092"


def checked(before: Callable[[MemoryLog], Awaitable[None]], topics: Topics = TOPICS, node: str = "desk-7") -> str | None:
    """The kind of error with which the checks end."""

    async def main_() -> str | None:
        log = MemoryLog(LoopClock())
        await before(log)
        try:
            await checks.check(log, topics, SERVERS, node)
        except TuttiError as error:
            return type(error).__name__ if "\n" not in error.message else error.message
        return None

    return virtual_loop.run(main_())


async def ready(log: MemoryLog) -> None:
    await ensure_topics(log, TOPICS)


async def telling(log: MemoryLog) -> None:
    """A node that works tells its places each second."""
    await ensure_topics(log, TOPICS)
    producer = await log.producer(client_id="test")
    places = Credits(node="desk-7", boot="b", sequence=1, mailbox=0, offers={}, read={})

    async def tell() -> None:
        while True:
            await producer.send(Message(TOPICS.credits, b"odd", b"x", 0))
            await producer.send(Message(TOPICS.credits, places.to_bytes(), b"desk-7", 0))
            await LoopClock().sleep(1.0)

    telling.task = asyncio.ensure_future(tell())  # type: ignore[attr-defined]


async def nothing(log: MemoryLog) -> None:
    """Some Kafka."""


async def another_count(log: MemoryLog) -> None:
    log.create([NewTopic(t.name, t.partitions, 1, {}) for t in Topics(TopicSettings(home_partitions=12)).all()])


async def away(log: MemoryLog) -> None:
    await ensure_topics(log, TOPICS)
    log.go_away("waits")


async def failing(log: MemoryLog) -> None:
    await ensure_topics(log, TOPICS)

    async def refused() -> None:
        raise LogUnavailable("nobody there")

    log.admin = refused  # type: ignore[assignment, method-assign]


@pytest.mark.parametrize(
    ("before", "kind"),
    [
        (ready, None),
        (telling, Conflict),
        (nothing, ConfigurationError),
        (another_count, ConfigurationError),
        (away, LogUnavailable),
        (failing, LogUnavailable),
    ],
)
def test_a_machine_joins_only_what_it_fits(before: Callable[[MemoryLog], Awaitable[None]], kind: type[TuttiError] | None) -> None:
    """Each reason is an error of its own."""
    assert checked(before) == (kind and kind.__name__)


def test_another_name_is_free() -> None:
    """Only a node of the same name is in the way; and one that is registered and silent is not: it may be this one's former life."""
    assert checked(telling, node="desk-8") is None


# The commands


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    monkeypatch.setattr(mdns, "find", lambda **_: [])
    monkeypatch.setattr(checks, "LISTEN_SECONDS", 0.1)
    return tmp_path / "node"


def tutti(*words: str, log: MemoryLog | None = None, given: str | None = None) -> Result:
    edge = Edge(open_log=lambda *_: log or MemoryLog(LoopClock()), clock=LoopClock())
    return CliRunner().invoke(main, words, obj=edge, input=given, catch_exceptions=False)


def token(**changes: object) -> str:
    return Invitation.model_validate({"name": "office", "servers": SERVERS, **changes}).token()


def made() -> MemoryLog:
    log = MemoryLog(LoopClock())
    asyncio.run(ready(log))
    return log


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), Exit.NOT_FOUND, "no cluster announces itself"),
        (("--cluster", "lab"), Exit.NOT_FOUND, "no cluster announces itself"),
        (("--token", "tutti-join-1.AAAA"), Exit.USAGE, "damaged"),
        (("--token", token(expires_at=1.0)), Exit.USAGE, "time is over"),
        (("--token", "@/no/such/file"), Exit.USAGE, "cannot be read"),
        (("--token", token(protocol="SASL_SSL")), Exit.USAGE, "a token with a user"),
        (("--token", token(protocol="SASL_SSL", username="w")), Exit.USAGE, "--password-file"),
        (("--token", token(), "--name", "no/name"), Exit.SETTINGS, "TUTTI_WORKER__NODE"),
        (("--token", token()), Exit.SETTINGS, "lacks topics that a worker needs"),
    ],
)
def test_each_reason_has_its_words_and_its_exit_code(home: Path, words: tuple[str, ...], code: Exit, said: str) -> None:
    """One line, no secret, and nothing is left in the folder."""
    result = tutti("join", *words, "--home", str(home))
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not home.exists()
    assert tutti("leave", "--home", str(home)).exit_code == Exit.NOT_FOUND


def test_without_an_ollama_the_embedded_node_is_offered(home: Path) -> None:
    """Everything else is right: that one lacks models is told with what would help; a token comes from standard input, too."""
    result = tutti("join", "--token", "-", "--home", str(home), log=made(), given=token())
    assert result.exit_code == Exit.FAILED
    assert "no Ollama answers at http://127.0.0.1:9" in result.stderr
    assert "--node embedded" in result.stderr
    assert not home.exists()


def test_a_person_who_has_several_clusters_chooses(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name; then everything goes on as with a token."""
    found = [Invitation(name=name, servers=SERVERS) for name in ("lab", "office")]
    monkeypatch.setattr(mdns, "find", lambda **_: found)
    assert "lab, office; choose one" in tutti("join", "--home", str(home)).stderr
    assert "no Ollama answers" in tutti("join", "--cluster", "lab", "--home", str(home), log=made()).stderr


def test_a_token_is_the_clusters_and_never_ones_own_secret(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Servers, topics, protocol as this shell has them; user and password only as they are named here."""
    (tmp_path / "password").write_text("of-the-workers\n")
    (tmp_path / "ca.pem").write_text("PEM")
    for name, value in {
        "SERVERS": "k1:9093",
        "SECURITY_PROTOCOL": "SASL_SSL",
        "CA_FILE": str(tmp_path / "ca.pem"),
        "SASL_USERNAME": "admin",
        "SASL_PASSWORD": "of-the-admin",
    }.items():
        monkeypatch.setenv(f"TUTTI_KAFKA_{name}", value)
    monkeypatch.setenv("TUTTI_TOPICS__PREFIX", "prod.")
    bare = read_token(tutti("join-token", "--name", "office").stdout, 0.0)
    assert (bare.name, bare.servers, bare.protocol, bare.username, bare.authorities) == ("office", "k1:9093", "SASL_SSL", "", "PEM")
    assert bare.topics.prefix == "prod."
    assert bare.password.get_secret_value() == ""
    assert bare.expires_at > 1.8e9 - 1e8
    words = ("--username", "tutti-worker", "--password-file", str(tmp_path / "password"), "--servers", "k9:1", "--days", "0")
    full = read_token(tutti("join-token", *words).stdout, 1e11)
    assert (full.username, full.password.get_secret_value(), full.servers) == ("tutti-worker", "of-the-workers", "k9:1")
