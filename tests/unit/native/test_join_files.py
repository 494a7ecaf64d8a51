"""What a joined machine is given and keeps: tokens, announcements, its settings file, what starts it with the machine."""

from __future__ import annotations

import plistlib
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from infra.cli.join import chosen
from infra.native.errors import NativeError
from infra.native.join import mdns, units, worker
from infra.native.join.invitation import Invitation, read_token
from infra.native.join.units import Unit
from infra.native.join.worker import Joined
from infra.native.node import ModelNode
from infra.native.paths import StackHome
from shared.errors import InvalidInput, NotFound
from shared.kafka.client.security import security_of
from shared.partitions import TopicSettings
from shared.topics import Topics

NOW = 1_800_000_000.0
GUARDED = Invitation(
    name="office",
    servers="kafka.lan:9093,kafka2.lan:9093",
    topics=TopicSettings(prefix="prod.", home_partitions=12),
    protocol="SASL_SSL",
    mechanism="SCRAM-SHA-512",
    username="tutti-worker",
    password=SecretStr("s3cr3t-of-kafka"),
    authorities="-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----",
    expires_at=NOW + 60,
)
OPEN = Invitation(name="lab", servers="10.0.0.5:19094")


# Tokens


@pytest.mark.parametrize("invitation", [GUARDED, OPEN])
def test_a_token_holds_all_of_an_invitation_and_shows_no_secret(invitation: Invitation) -> None:
    """One word, which mails may break; nothing prints the password."""
    token = invitation.token()
    assert len(token.split()) == 1
    broken = "\n".join(token[at : at + 40] for at in range(0, len(token), 40))
    assert read_token(f" {broken}\n", NOW) == invitation
    assert "s3cr3t" not in f"{invitation!r} {invitation} {invitation.kafka()} {token}"


@given(st.data())
def test_each_damage_to_a_token_is_seen(data: st.DataObject) -> None:
    """A character that is missing, changed or added; the error shows nothing of it."""
    token = GUARDED.token()
    at = data.draw(st.integers(0, len(token) - 1))
    odd = data.draw(st.sampled_from("aB9_-.=ä"))
    damaged = data.draw(st.sampled_from([token[:at] + token[at + 1 :], token[:at] + odd + token[at + 1 :], token[:at]]))
    if damaged == token:
        return
    with pytest.raises(InvalidInput) as caught:
        read_token(damaged, NOW)
    assert token[13:25] not in caught.value.message
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("odd", ["", "hello", "tutti-join-1.", "tutti-join-2.AAAA", "tutti-join-1." + "A" * 100_000])
def test_what_is_no_token_is_told(odd: str) -> None:
    """Of whatever size."""
    with pytest.raises(InvalidInput):
        read_token(odd, NOW)


def test_a_bomb_is_not_unpacked() -> None:
    """A valid digest is no proof of a good will: what is unpacked has a bound."""
    import base64
    import zlib

    from infra.native.join.invitation import PREFIX, _digest

    packed = zlib.compress(b" " * 50_000_000)
    with pytest.raises(InvalidInput):
        read_token(PREFIX + base64.urlsafe_b64encode(_digest(packed) + packed).decode(), NOW)


def test_a_token_has_an_end() -> None:
    """By this machine's clock; without a date it has none."""
    with pytest.raises(InvalidInput, match="time is over"):
        read_token(GUARDED.token(), NOW + 60)
    assert read_token(OPEN.token(), 1e11) == OPEN


def test_an_invitation_becomes_what_every_kafka_client_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever this shell says of another Kafka; files are its owner's alone."""
    monkeypatch.setenv("TUTTI_KAFKA_SASL_PASSWORD", "another")
    monkeypatch.setenv("TUTTI_TOPICS__PREFIX", "another.")
    home = StackHome(tmp_path / "node")
    found = worker.files(home, GUARDED.model_copy(update={"authorities": ""}), None)
    settings = GUARDED.settings(found)
    security_options = security_of(settings).options
    assert (security_options["sasl_plain_username"], security_options["sasl_plain_password"]) == ("tutti-worker", "s3cr3t-of-kafka")
    assert Topics(settings.topics).nodes == "prod.nodes"
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.root.iterdir()} == {0o600}


# Announcements


def test_an_announcement_says_no_secret_and_is_read_as_it_was_said() -> None:
    """Where Kafka is, and how its topics are named and counted."""
    said = mdns.record_of(GUARDED)
    assert "tutti-worker" not in str(said)
    assert "s3cr3t" not in str(said)
    found = mdns.read_record("office", said)
    assert found is not None
    assert (found.servers, found.topics, found.protocol) == (GUARDED.servers, GUARDED.topics, "SASL_SSL")
    with pytest.raises(ValueError, match="joined with tokens"):
        mdns.record_of(OPEN.model_copy(update={"servers": ",".join(["kafka.example.org:9092"] * 20)}))


@given(st.dictionaries(st.sampled_from(["v", "servers", "topics", "protocol", "odd"]), st.text(max_size=300)))
def test_anybody_may_announce_anything(said: dict[str, str]) -> None:
    """What is no announcement of ours is passed over."""
    found = mdns.read_record("x", said)
    assert found is None or (said["v"] == "1" and found.servers == said["servers"])


def test_one_cluster_is_chosen_or_it_is_said_why_not() -> None:
    """None, several, another one: each has its error, and names what there is."""
    assert chosen([OPEN], None) is OPEN
    assert chosen([OPEN, GUARDED], "office") is GUARDED
    with pytest.raises(NotFound, match="join-token"):
        chosen([], None)
    with pytest.raises(NotFound, match="there are: lab"):
        chosen([OPEN], "office")
    with pytest.raises(InvalidInput, match="lab, office; choose"):
        chosen([OPEN, GUARDED], None)


# The settings file


VALUES = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), max_size=60)


@given(st.dictionaries(st.from_regex(r"TUTTI_[A-Z_]{1,20}", fullmatch=True), VALUES, max_size=8))
def test_settings_are_read_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> None:
    """Whatever quotes, dollars and backslashes are in them; a shell reads the same."""
    path = tmp_path_factory.mktemp("settings") / "worker.env"
    worker.write_environment(path, environment)
    assert worker.read_environment(path.read_text()) == environment
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_shell_reads_the_same(tmp_path: Path) -> None:
    """As systemd does, whose form is the shell's."""
    odd = {"TUTTI_A": "x \"y\" $HOME `id` \\ 'z' %h", "TUTTI_B": ""}
    worker.write_environment(tmp_path / "e", odd)
    script = f'set -a; . {tmp_path / "e"}; printf "%s|%s" "$TUTTI_A" "$TUTTI_B"'
    shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown == f"{odd['TUTTI_A']}|"
    with pytest.raises(NativeError):
        worker.write_environment(tmp_path / "e", {"TUTTI_A": "1\nTUTTI_B=2"})


def test_what_a_worker_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cluster, its endpoint, its name; what the shell says of it, and nothing of another cluster."""
    for name, value in (("TUTTI_WORKER__SLOTS", "4"), ("TUTTI_KAFKA_SERVERS", "elsewhere:1"), ("TUTTI_API_KEY", "k")):
        monkeypatch.setenv(name, value)
    model = ModelNode("running", "http://127.0.0.1:11434", "Ollama", ("m",))
    found = worker.settings_of(GUARDED, {"kafka_ca_file": "/x/ca.pem"}, model, "desk-7")
    assert found.pop("TUTTI_HTTP_PORT").isdecimal()
    assert found == {
        "TUTTI_JOINED": "office",
        "TUTTI_WORKER__NODE": "desk-7",
        "TUTTI_WORKER__SLOTS": "4",
        "TUTTI_WORKER__BACKEND": "ollama",
        "TUTTI_WORKER__URL": "http://127.0.0.1:11434",
        "TUTTI_KAFKA_SERVERS": GUARDED.servers,
        "TUTTI_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "TUTTI_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "TUTTI_KAFKA_SASL_USERNAME": "tutti-worker",
        "TUTTI_KAFKA_CA_FILE": "/x/ca.pem",
        "TUTTI_TOPICS__PREFIX": "prod.",
        "TUTTI_TOPICS__HOME_PARTITIONS": "12",
    }


# Survives reboots


def joined(directory: Path, node: str = "desk-7") -> Joined:
    home = StackHome(directory / "a folder 100% mine")
    home.root.mkdir(parents=True, exist_ok=True)
    environment = {"TUTTI_JOINED": 'of"fice\n%h', "TUTTI_WORKER__NODE": node, "TUTTI_HTTP_PORT": "1"}
    worker.write_environment(home.root / "worker.env", {**environment, "TUTTI_JOINED": "office"})
    return Joined(home, environment)


@pytest.mark.parametrize("kind", ["user", "system"])
def test_a_systemd_unit_is_one_that_systemd_takes(kind: units.Kind, tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing wrong with it; no reboot was tried."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze here")
    unit = tmp_path / f"{units.name_of(joined(tmp_path))}.service"
    unit.write_text(units.systemd_unit(joined(tmp_path), kind))
    whose, surroundings = ["--user"] if kind == "user" else [], {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run([program, *whose, "verify", str(unit)], env=surroundings, capture_output=True, text=True, check=False)
    of_ours = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, of_ours) == (0, []), done.stderr


def test_a_launchd_agent_is_a_property_list(tmp_path: Path) -> None:
    """It holds all settings; not tried on a Mac."""
    node = joined(tmp_path)
    found = plistlib.loads(units.launchd_plist(node))
    assert found["Label"] == "tutti-node-desk-7"
    assert found["ProgramArguments"][1:] == ["-m", "services.worker"]
    assert found["EnvironmentVariables"].items() >= node.environment.items()
    assert found["KeepAlive"] is True


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine that systemd has started, as far as can be told; the file has what its programs were asked."""
    said, programs = tmp_path / "said", tmp_path / "bin"
    programs.mkdir()
    for name in ("systemctl", "loginctl"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {said}\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(units, "SYSTEMD", tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    return said


def test_a_unit_is_installed_started_and_removed(told: Path, tmp_path: Path) -> None:
    """By the user's own manager; its file is his alone, and nothing is left."""
    node = joined(tmp_path)
    unit = Unit(node, units.kind_here())
    assert unit.install() == []
    assert unit.path == tmp_path / "config/systemd/user/tutti-node-desk-7.service"
    assert stat.S_IMODE(unit.path.stat().st_mode) == 0o600
    assert units.installed(node) == unit
    assert unit.remove()
    assert not unit.path.exists()
    assert units.installed(node) is None
    assert told.read_text().splitlines() == [
        "systemctl --user daemon-reload",
        "systemctl --user enable --now tutti-node-desk-7.service",
        "loginctl enable-linger",
        "systemctl --user disable --now tutti-node-desk-7.service",
        "systemctl --user daemon-reload",
    ]


def test_a_machine_without_a_manager_of_services_says_so(monkeypatch: pytest.MonkeyPatch, told: Path, tmp_path: Path) -> None:
    """A container, for example; and one whose manager refuses, in its own words."""
    (tmp_path / "bin/systemctl").write_text("#!/bin/sh\necho it is masked >&2; exit 1\n")
    with pytest.raises(NativeError, match="it is masked"):
        Unit(joined(tmp_path), "user").install()
    monkeypatch.setattr(units, "SYSTEMD", tmp_path / "not there")
    with pytest.raises(NativeError, match="join without it"):
        units.kind_here()
