"""ACLs are the registry of topics, no more and no less; the calls that are printed say the same."""

from __future__ import annotations

import shlex
from collections import defaultdict

import pytest

from infra.cli.acls import commands, needed
from shared.kafka.client.aio_acls import Acl, AclMatch, AclOperation, AclResource
from shared.services import NAMES, listed
from shared.topics import FAMILIES, Topics, TopicSettings
from tests.support.cli_stage import Stage

READ, WRITE = AclOperation.READ, AclOperation.WRITE


def allowed(acls: list[Acl], who: str, operation: AclOperation, topic: str) -> bool:
    """As a broker judges."""
    for acl in acls:
        if acl.principal == who and acl.operation is operation and acl.resource is AclResource.TOPIC:
            found = topic == acl.name if acl.pattern is AclMatch.LITERAL else topic.startswith(acl.name)
            if found:
                return True
    return False


@pytest.mark.parametrize("prefix", ["", "shop-"])
def test_who_may_read_and_write_what(prefix: str) -> None:
    topics = Topics(TopicSettings(prefix=prefix))
    acls = needed(topics, listed(), "User:{}")
    assert len(set(acls)) == len(acls)
    for topic in topics.all():
        for name in NAMES:
            assert allowed(acls, f"User:{name}", READ, topic.name) == (name in topic.family.read_by), (name, topic.name)
            assert allowed(acls, f"User:{name}", WRITE, topic.name) == (name in topic.family.written_by), (name, topic.name)
            assert allowed(acls, f"User:{name}", AclOperation.DESCRIBE, topic.name)
        assert allowed(acls, "User:producer", WRITE, topic.name) == ("any producer" in topic.family.written_by)
        assert allowed(acls, "User:reader", READ, topic.name) == ("anyone" in topic.family.read_by)
    assert allowed(acls, "User:worker", WRITE, f"{prefix}replies.of-somebody")
    assert not allowed(acls, "User:router", WRITE, f"{prefix}replies.of-somebody")
    assert all(acl.name.startswith(prefix) for acl in acls if acl.resource is not AclResource.CLUSTER)
    assert not any(acl.name == "" for acl in acls)


def test_groups_are_their_services_own() -> None:
    acls = needed(Topics(TopicSettings(prefix="p-")), listed())
    readers = {(acl.principal, acl.name, acl.pattern) for acl in acls if acl.resource is AclResource.GROUP and acl.operation is READ}
    grouped = {(f"User:tutti-{one.name}", f"p-tutti-{one.name}", AclMatch.LITERAL) for one in listed() if one.grouped}
    assert readers == grouped | {(f"User:tutti-{one.name}", f"p-tutti-{one.name}-", AclMatch.PREFIXED) for one in listed()}


def test_everybody_that_the_registry_names_is_somebody() -> None:
    """A new word there needs a principal."""
    words = {word for family in FAMILIES for word in (*family.written_by, *family.read_by)}
    assert words <= {*NAMES, "CLI", "any producer", "anyone"}


def test_the_calls_say_the_same() -> None:
    acls = needed(Topics(TopicSettings(prefix="p-")), listed())
    said: set[tuple[str, str, str, str, str]] = set()
    for line in commands(acls, "kafka:9092"):
        words, options = shlex.split(line), defaultdict(list)
        assert words[0] == "kafka-acls.sh"
        for flag, value in zip(words, [*words[1:], ""], strict=True):
            options[flag].append(value)
        for operation in options["--operation"]:
            for kind in ("topic", "group", "cluster"):
                for name in options.get(f"--{kind}", ()):
                    shown = "kafka-cluster" if kind == "cluster" else name
                    said.add((options["--allow-principal"][0], operation, kind, shown, options["--resource-pattern-type"][0]))
    wanted = {
        (a.principal, a.operation.name.title().replace("_", ""), a.resource.name.lower(), a.name, a.pattern.name.lower()) for a in acls
    }
    assert said == wanted


def test_the_command() -> None:
    stage = Stage()
    assert "User:tutti-planner" in stage.tutti("topics", "acls").output
    found = stage.json("topics", "acls", "--principal", "User:CN={}")
    assert {"principal": "User:CN=sink", "operation": "read", "resource": "topic", "name": "acts", "pattern": "literal"} in found
    assert stage.tutti("topics", "acls", "--principal", "nobody").exit_code == 2
