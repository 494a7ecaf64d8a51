"""Settings that end up in messages have the messages' types: a wrong one ends the process with 78 and a sentence, not the first record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from services.delay.settings import DelaySettings
from services.ingress.settings import IngressSettings
from services.planner.settings import PlannerSettings
from services.planner.state.policy import Policy
from services.router.settings import RouterSettings
from services.worker.app import build
from services.worker.settings import WorkerSettings
from shared.agents.beliefs import Beliefs
from shared.agents.table import Declarations
from shared.scheduling.lengths import AnswerLengths, PromptLengths
from shared.service.configuration import problems
from shared.service.lifecycle import EXIT_SETTINGS
from shared.service.process import run_process
from shared.settings import ClusterSettings

KINDS = {
    "TUTTI_WORKER__": WorkerSettings,
    "TUTTI_INGRESS__": IngressSettings,
    "TUTTI_PLANNER__": PlannerSettings,
    "TUTTI_ROUTER__": RouterSettings,
    "TUTTI_DELAY__": DelaySettings,
    "TUTTI_": ClusterSettings,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TUTTI_WORKER__TAGS", "GPU"),
        ("TUTTI_WORKER__TAGS", '["gpu", "a b"]'),
        ("TUTTI_WORKER__AGENTS", "Research"),
        ("TUTTI_WORKER__AGENTS", '["chat'),
        ("TUTTI_WORKER__NODE", "my node"),
        ("TUTTI_WORKER__NODE", "n" * 129),
        ("TUTTI_WORKER__MODELS", "a\nb"),
        ("TUTTI_WORKER__SLOTS", "9" * 400),
        ("TUTTI_WORKER__URL", "file:///etc/passwd"),
        ("TUTTI_WORKER__URL", "http://a b"),
        ("TUTTI_WORKER__API_KEY", "secret\n"),
        ("TUTTI_WORKER__PRICES", '{"*": {"prompt_per_million": 1e308}}'),
        ("TUTTI_WORKER__DEFAULT_MAX_TOKENS", "1000000000"),
        ("TUTTI_WORKER__RATE_PER_SECOND", "1e-300"),
        ("TUTTI_INSTANCE", "a/b"),
        ("TUTTI_INSTANCE", "i" * 101),
        ("TUTTI_TOPICS__CAPABILITIES", '["chat", "Chat"]'),
        ("TUTTI_TOPICS__CAPABILITIES", "[]"),
        ("TUTTI_TOPICS__REPLY_TOPICS", '["no topic"]'),
        ("TUTTI_TOPICS__PREFIX", "a.b."),
        ("TUTTI_TOPICS__HOME_PARTITIONS", "1000000"),
        ("TUTTI_GRACE_SECONDS", "inf"),
        ("TUTTI_PLANNER__LEASE_SECONDS", "nan"),
        ("TUTTI_PLANNER__LIMITS__COST", "1e303"),
        ("TUTTI_PLANNER__SETTLED_MEMORY_COUNT", "-1"),
        ("TUTTI_ROUTER__INTERACTIVE_SHARE", "10000000000"),
        ("TUTTI_DELAY__HELD_BYTES", "1e400"),
        ("TUTTI_INGRESS__DEADLINE_SECONDS", '{"batch": 1e300}'),
    ],
)
def test_a_wrong_setting_is_told_in_a_sentence(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, with the variable's name and not its value: what `main` prints before it returns 78."""
    monkeypatch.setenv(name, value)
    kind = KINDS[max((prefix for prefix in KINDS if name.startswith(prefix)), key=len)]
    with pytest.raises(ValidationError) as caught:
        kind()
    lines = problems(caught.value)
    assert lines is not None
    assert [line.partition(":")[0].startswith(name) for line in lines] == [True]
    assert len(value) < 4 or value not in lines[0]


def test_the_process_ends_with_78(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is started that would fail at its first record."""
    monkeypatch.setenv("TUTTI_INSTANCE", "a/b")
    assert run_process([("worker", build)]) == EXIT_SETTINGS
    assert capsys.readouterr().err.startswith("tutti worker: wrong settings: TUTTI_INSTANCE: ")


def test_names_are_read_from_a_list_or_from_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model's name may hold spaces; JSON is the way for one that holds a comma."""
    monkeypatch.setenv("TUTTI_WORKER__MODELS", "/models/my model.gguf, gemma3:270m,")
    monkeypatch.setenv("TUTTI_WORKER__TAGS", '["gpu", "eu"]')
    read = WorkerSettings()
    assert (read.models, read.tags) == (("/models/my model.gguf", "gemma3:270m"), ("gpu", "eu"))


@pytest.mark.parametrize("host", ["wörk.example", "_", "a b", "x" * 300, ""])
def test_a_hosts_name_becomes_a_node_id(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine is called: a host's name may be none of the characters of an id."""
    monkeypatch.setattr("socket.gethostname", lambda: host)
    node = WorkerSettings().node_id()
    assert WorkerSettings(node=node).node == node != ""


def test_every_field_of_the_policy_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """What decisions and docstrings name as a number to change is a setting; the defaults agree."""
    learned: dict[str, Any] = {"declared": Declarations(), "lengths": AnswerLengths(), "prompts": PromptLengths(), "beliefs": Beliefs()}
    assert replace(PlannerSettings().policy(), **learned) == replace(Policy(), **learned)
    names = {"settled_memory_count": 7, "settled_memory_seconds": 8.0, "cancel_guesses": 9, "cancel_seconds": 10.0}
    names |= {"cancelled_delays": 11, "followers": 12, "stream_position_seconds": 13.0}
    for name, value in names.items():
        monkeypatch.setenv(f"TUTTI_PLANNER__{name.upper()}", str(value))
    policy = PlannerSettings().policy()
    assert {name: getattr(policy, name) for name in names} == names
