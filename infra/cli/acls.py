"""`tutti topics acls`: what each service needs of Kafka and no more, derived from the registry of topics.

A topic's writers may write it, its readers read it. Everybody may see that the topics are there and how they are configured, since every
service tells of its topics on /readyz; a group is its service's own. Nobody has a transaction, so there are no transactional ids.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence

import click

from infra.cli.cluster import Cluster, with_cluster
from infra.cli.output import AS_JSON, emit_json
from shared.kafka.client.aio_acls import CLUSTER, Acl, AclMatch, AclOperation, AclResource
from shared.kafka.client.aio_admin import AioAdmin
from shared.services import ListedService, group_of, listed
from shared.topics import GROWS, Topics

PRINCIPAL = "User:tutti-{}"
_NAMES = {"CLI": "cli", "any producer": "producer", "anyone": "reader"}
"""The registry's words for who is no service → what fills the principal's name."""
_OPERATORS = "cli"
_POSITIONS_OF = {"ingress": ("planner",), "sink": ("planner",)}
"""Whose positions a service reads: by the planners' it tells how many jobs wait."""


def needed(topics: Topics, services: Sequence[ListedService], principal: str = PRINCIPAL) -> list[Acl]:
    """All ACLs of a cluster, none twice. `principal`: with `{}` for the name of a service, or `cli`, `producer`, `reader`."""
    found: dict[Acl, None] = {}
    for service in services:
        who = principal.format(service.name)
        found |= dict.fromkeys((*_of_topics(topics, service.name, who), *_of_groups(topics, service, who)))
    for word, name in _NAMES.items():
        found |= dict.fromkeys(_of_topics(topics, word, principal.format(name)))
    found |= dict.fromkeys(_of_operators(topics, principal.format(_OPERATORS)))
    return list(found)


def _of_topics(topics: Topics, name: str, who: str) -> Iterator[Acl]:
    for topic in topics.all():
        family = topic.family
        if name in family.written_by:
            yield Acl(who, AclOperation.WRITE, AclResource.TOPIC, topic.name)
            if family.pattern == "replies":
                yield from _of_replies(topics, who)
        if name in family.read_by:
            yield Acl(who, AclOperation.READ, AclResource.TOPIC, topic.name)
        if name not in _NAMES:
            yield Acl(who, AclOperation.DESCRIBE, AclResource.TOPIC, topic.name)
            yield Acl(who, AclOperation.DESCRIBE_CONFIGS, AclResource.TOPIC, topic.name)


def _of_replies(topics: Topics, who: str) -> Iterator[Acl]:
    """Topics that callers may name besides."""
    for allowed in topics.settings.reply_topics:
        pattern = AclMatch.PREFIXED if allowed.endswith("*") else AclMatch.LITERAL
        name = topics.settings.prefix + allowed.removesuffix("*")
        if name:  # `*` alone: then whoever sets that writes an ACL for it himself
            yield Acl(who, AclOperation.WRITE, AclResource.TOPIC, name, pattern)


def _of_groups(topics: Topics, service: ListedService, who: str) -> Iterator[Acl]:
    prefix = topics.settings.prefix
    if service.grouped:
        yield Acl(who, AclOperation.READ, AclResource.GROUP, group_of(service.name, prefix))
    yield Acl(who, AclOperation.READ, AclResource.GROUP, group_of(f"{service.name}-", prefix), AclMatch.PREFIXED)  # of its nodes, its parts
    for other in _POSITIONS_OF.get(service.name, ()):
        yield Acl(who, AclOperation.DESCRIBE, AclResource.GROUP, group_of(other, prefix))
    yield Acl(who, AclOperation.DESCRIBE_CONFIGS, AclResource.CLUSTER, CLUSTER)  # how short a member's session may be


def _of_operators(topics: Topics, who: str) -> Iterator[Acl]:
    """The command line: makes topics and lets them grow, looks at everything, and sends dead letters again, wherever they lay."""
    operations = (AclOperation.READ, AclOperation.WRITE, AclOperation.CREATE, AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS)
    yield from (Acl(who, operation, AclResource.TOPIC, topic.name) for topic in topics.all() for operation in operations)
    yield from (Acl(who, AclOperation.ALTER, AclResource.TOPIC, topic.name) for topic in topics.all() if topic.family.count in GROWS)
    yield Acl(who, AclOperation.DESCRIBE, AclResource.GROUP, group_of("", topics.settings.prefix), AclMatch.PREFIXED)
    yield Acl(who, AclOperation.DESCRIBE_CONFIGS, AclResource.CLUSTER, CLUSTER)


def commands(acls: Sequence[Acl], servers: str) -> list[str]:
    """Calls of Kafka's own kafka-acls.sh, as few as may be."""
    grouped: dict[tuple[str, AclResource, AclMatch, str], list[str]] = defaultdict(list)
    for acl in acls:
        grouped[acl.principal, acl.resource, acl.pattern, acl.name].append(acl.operation.name.title().replace("_", ""))
    lines: dict[tuple[str, AclResource, AclMatch, tuple[str, ...]], list[str]] = defaultdict(list)
    for (who, resource, pattern, name), operations in grouped.items():
        lines[who, resource, pattern, tuple(sorted(operations))].append(name)
    shown = []
    for (who, resource, pattern, allowed), names in lines.items():
        words = ["kafka-acls.sh", "--bootstrap-server", servers, "--command-config", "admin.properties", "--add", "--allow-principal", who]
        words += [word for operation in allowed for word in ("--operation", operation)]
        flag = f"--{resource.name.lower()}"
        words += [flag] if resource is AclResource.CLUSTER else [word for name in names for word in (flag, name)]
        shown.append(shlex.join([*words, "--resource-pattern-type", pattern.name.lower()]))
    return shown


@click.command()
@click.option(
    "--principal", default=PRINCIPAL, show_default=True, help="How Kafka names a service: {} is its name, or cli, producer, reader."
)
@AS_JSON
@click.option("--apply", is_flag=True, help="Make them, as whoever TUTTI_KAFKA_SASL_USERNAME is; those that are there stay.")
@click.pass_context
def acls(context: click.Context, principal: str, *, as_json: bool, apply: bool) -> None:
    """Show what each service needs of Kafka, as calls of kafka-acls.sh; a broker that denies by default lets each do just that."""

    async def run(cluster: Cluster) -> list[Acl]:
        found = needed(cluster.topics, listed(), principal)
        if apply:
            async with cluster.admin() as admin:
                assert isinstance(admin, AioAdmin)
                await cluster.connected(admin.create_acls(found))
        return found

    if "{}" not in principal:
        raise click.UsageError("--principal lacks {}, the place of a service's name")
    found = with_cluster(context, run)
    if as_json:
        emit_json(
            [{**acl._asdict(), **{key: acl._asdict()[key].name.lower() for key in ("operation", "resource", "pattern")}} for acl in found]
        )
    elif apply:
        click.echo(f"{len(found)} ACLs are there")
    else:
        for line in commands(found, "$SERVERS"):
            click.echo(line.replace("'$SERVERS'", '"$SERVERS"'))
