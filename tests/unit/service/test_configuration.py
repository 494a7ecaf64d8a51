"""Settings of the shell: ports, names, and messages that name the variable without its value."""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.errors import ConfigurationError
from shared.service.configuration import ShellSettings, instance_name, listen, ports_of, problems
from shared.services import PORTS


def test_each_service_has_its_own_port() -> None:
    """Several services in one process keep the ports that they have alone."""
    assert ports_of(ShellSettings(), list(PORTS)) == PORTS


def test_a_single_service_takes_the_port_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """TUTTI_HTTP_PORT is for one; with several it is refused, because it would clash."""
    monkeypatch.setenv("TUTTI_HTTP_PORT", "9999")
    assert ports_of(ShellSettings(), ["worker"]) == {"worker": 9999}
    assert ports_of(ShellSettings(), ["worker", "worker-find"]) == {"worker": 9999, "worker-find": 0}, "nodes of one service"
    with pytest.raises(ConfigurationError, match="TUTTI_HTTP_PORTS__<SERVICE>"):
        ports_of(ShellSettings(), ["worker", "router"])


def test_one_of_several_services_takes_the_port_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others keep theirs."""
    monkeypatch.setenv("TUTTI_HTTP_PORTS__INGRESS", "8081")
    assert ports_of(ShellSettings(), ["ingress", "planner"]) == {"ingress": 8081, "planner": PORTS["planner"]}


def test_a_taken_port_is_told_by_name() -> None:
    """With the variables that choose another."""
    with listen("planner", "127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"planner cannot listen on 127.0.0.1:{port} .*TUTTI_HTTP_PORT"):
            listen("planner", "127.0.0.1", port)


@settings(max_examples=25)
@given(st.integers(), st.integers(1, 2**22))
def test_an_instance_name_is_a_client_id(seed: int, process_id: int) -> None:
    """host-pid-random, in characters that Kafka takes; another random another name."""
    name = instance_name(Random(seed), process_id)
    assert re.fullmatch(r"[A-Za-z0-9-]{1,40}-\d+-[0-9a-f]{6}", name)


class OwnSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TUTTI_OWN__", env_nested_delimiter="__")

    slots: int = 1
    password: int = 1


class Message(BaseModel):
    number: int


def test_a_wrong_setting_is_named_as_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wrong one, by the prefix of its own class, without the value: it may be a secret."""
    monkeypatch.setenv("TUTTI_OWN__SLOTS", "many")
    monkeypatch.setenv("TUTTI_OWN__PASSWORD", "hunter2")
    with pytest.raises(ValidationError) as caught:
        OwnSettings()
    lines = problems(caught.value)
    assert lines is not None
    assert [line.split(":")[0] for line in lines] == ["TUTTI_OWN__SLOTS", "TUTTI_OWN__PASSWORD"]
    assert "hunter2" not in str(lines)


def test_another_validation_error_is_not_about_settings() -> None:
    """A defect keeps its traceback."""
    with pytest.raises(ValidationError) as caught:
        Message.model_validate({"number": "x"})
    assert problems(caught.value) is None
