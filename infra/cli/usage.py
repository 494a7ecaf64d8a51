"""`tutti usage`, `top`, `audit`: what the sink keeps, through its HTTP API: tables for people, CSV and JSON for machines."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from infra.cli.cluster import Cluster, with_cluster
from infra.cli.exits import CommandExit, Exit
from infra.cli.instants import instant
from infra.cli.output import emit_table, moment
from infra.cli.rest import Api
from infra.cli.sink import ask, emit_rows, form_option, path, plain, sink
from shared.audit import GENESIS, broken, digest, home_name
from shared.clock import SystemClock

_PAGE = 1_000
_SUMS = ("jobs", "steps", "attempts", "answers", "failures", "calls", "prompt_tokens", "completion_tokens", "wasted_tokens", "cost")
_JOBS = ("job", "tenant", "pattern", "model", "status", "calls", "prompt_tokens", "completion_tokens", "wasted_tokens", "cost")
_ENTRY = ("offset", "at_ms", "type", "job", "step", "attempt", "node", "status", "failure", "by", "verdict", "epoch", "digest", "chain")


@click.command()
@click.option("--from", "first", metavar="DATE", help="First day (UTC); 30 days before the last one when left out.")
@click.option("--to", "last", metavar="DATE", help="Last day; today when left out.")
@click.option(
    "--by",
    default="day,tenant",
    show_default=True,
    help="Of day, tenant, and pattern, class, status, key; or agent, model; or conversation.",
)
@click.option("--tenant", help="An administrator's: of this tenant only.")
@click.option("--jobs", "rows", is_flag=True, help="One row a job instead of sums, the newest first.")
@click.option("--since", metavar="TIME", default="1d", show_default=True, help="Of rows: 30m, 2h, 7d ago, or an instant.")
@click.option("--status", help="Of rows: only these.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Most rows.")
@form_option
def usage(*, first: str | None, last: str | None, by: str, tenant: str | None, rows: bool, form: str | None, **of_rows: Any) -> None:
    """What was used: jobs, tokens, cost, waste, by day and tenant or what else is named."""
    if rows:
        found = asyncio.run(_rows(tenant, instant(of_rows["since"], SystemClock().wall()), of_rows["status"], of_rows["limit"]))
        emit_rows(found, ("ended", *_JOBS), form, empty="no job in this time")
        return
    answer = asyncio.run(ask("/v1/usage", {"from": first, "to": last, "by": by, "tenant": tenant}))
    found = answer["rows"]
    shown = [name for name in _SUMS if any(name in row for row in found)]
    emit_rows(found, (*by.split(","), *shown), form, empty="nothing was used")


@click.command()
@click.option("--minutes", type=click.IntRange(1, 1_440), default=5, show_default=True, help="How far back.")
@click.option("--by", type=click.Choice(["tenant", "pattern", "class", "model"]), default="tenant", show_default=True)
@click.option("--tenant", help="An administrator's: of this tenant only.")
@click.option("--watch", is_flag=True, help="Again each 2 s, until interrupted.")
@form_option
def top(*, minutes: int, by: str, tenant: str | None, watch: bool, form: str | None) -> None:
    """Who used most lately, and how much of it was wasted."""
    asyncio.run(_top({"minutes": minutes, "by": by, "tenant": tenant}, form, watch=watch))


async def _top(asked: dict[str, Any], form: str | None, *, watch: bool) -> None:
    while True:
        found = await ask("/v1/top", asked)
        if watch:
            click.clear()
        columns = (asked["by"], "live", "ended", "failed", "tokens", "wasted_tokens", "cost")
        emit_rows(found["rows"], columns, form, empty="nothing in this time")
        if not watch:
            return
        await SystemClock().sleep(2.0)


@click.group()
def audit() -> None:
    """The audit chain: each event of history, linked to the one before by its hash."""


@dataclass(slots=True)
class _Chains:
    """What a check has seen. `digests`: home → offset → of its event, where they are to be compared."""

    heads: set[str]
    digests: dict[str, dict[int, str]] | None
    rows: list[list[Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    async def read(self, connection: Api, home: str) -> None:
        """One home's."""
        first, entry, count = None, None, 0
        async for page in _pages(connection, home):
            first = first or page[0]
            before = entry["chain"] if entry else GENESIS if first["offset"] == 0 else None
            if wrong := broken(page, before):
                self.faults.append(f"home {home}: {wrong}")
            entry, count = page[-1], count + len(page)
            self.heads.difference_update(_head(home, one) for one in page)
            if self.digests is not None:
                self.digests.setdefault(home, {}).update((one["offset"], one["digest"]) for one in page)
        if first and entry:
            self.rows.append([home, first["offset"], entry["offset"], count, _head(home, entry)])

    async def compare(self, cluster: Cluster) -> None:
        """With what Kafka still has."""
        topic, found = cluster.topics.job_events, 0
        async with cluster.admin() as admin:
            info = (await cluster.connected(admin.list_topics())).get(topic)
        async for record in cluster.read_all(topic):
            home = home_name(info.id, record.partition) if info else ""
            wanted = (self.digests or {}).get(home, {}).get(record.offset)
            if wanted is not None:
                found += 1
                if digest(record.value or b"") != wanted:
                    self.faults.append(f"home {home}: the event at offset {record.offset} is another than the chain says")
        click.echo(f"{found} events compared with Kafka", err=True)


def _head(home: str, entry: dict[str, Any]) -> str:
    return f"{home}:{entry['offset']}:{entry['chain']}"


@audit.command()
@click.option("--home", help="Only this one; all when left out.")
@click.option("--events", is_flag=True, help="Compare with `job-events` too, as far as Kafka still has them.")
@click.option("--head", "heads", multiple=True, metavar="HOME:OFFSET:CHAIN", help="An earlier head, which must be part of the chain.")
@click.pass_context
def verify(context: click.Context, *, home: str | None, events: bool, heads: Sequence[str]) -> None:
    """Check the chains, and print their heads: kept elsewhere, they prove later that nothing before was changed."""
    chains = _Chains(set(heads), {} if events else None)
    asyncio.run(_verify(home, chains))
    if events:
        with_cluster(context, chains.compare)
    faults = chains.faults + [f"the head {head} is not part of the chain" for head in sorted(chains.heads)]
    emit_table(("home", "from", "to", "entries", "head"), chains.rows, empty="there is no chain yet")
    if faults:
        raise CommandExit(Exit.FAILED, "; ".join(faults[:10]))


async def _verify(home: str | None, chains: _Chains) -> None:
    async with sink() as connection:
        for name in [home] if home else (await connection.call("GET", "/v1/audit"))["homes"]:
            await chains.read(connection, name)


@audit.command()
@click.option("--by", help="Of this key's name only.")
@click.option("--kind", help="Only what was done to these: key, tenant, schedule, agent, dead_letters, ...")
@click.option("--limit", type=click.IntRange(1, 1_000), default=100, show_default=True)
@form_option
def acts(*, by: str | None, kind: str | None, limit: int, form: str | None) -> None:
    """What administrators did to the cluster, newest first: who, when, what."""
    rows = asyncio.run(ask("/v1/acts", {"by": by, "kind": kind, "limit": limit}))["rows"]
    shown = [row | {"when": moment(row["at"])} for row in rows]
    emit_rows(shown, ("when", "by", "did", "kind", "name", "tenant", "count"), form, "nothing was done")


@audit.command()
@click.option("--home", help="Only this one; all when left out.")
@click.option("--tenant", help="Entries of this tenant only, which are no whole chain.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV instead of a JSON object a line.")
def export(*, home: str | None, tenant: str | None, as_csv: bool) -> None:
    """All entries, in order: who may check them needs nothing else."""
    asyncio.run(_export(home, tenant, as_csv=as_csv))


async def _export(home: str | None, tenant: str | None, *, as_csv: bool) -> None:
    table = csv.writer(sys.stdout)
    if as_csv:
        table.writerow(("home", "tenant", *_ENTRY))
    async with sink() as connection:
        for name in [home] if home else (await connection.call("GET", "/v1/audit"))["homes"]:
            async for page in _pages(connection, name, tenant):
                for entry in page:
                    if as_csv:
                        table.writerow([name, entry.get("tenant", ""), *(plain(entry.get(field)) for field in _ENTRY)])
                    else:
                        click.echo(json.dumps({"home": name, **entry}, ensure_ascii=False))


async def _pages(connection: Api, home: str, tenant: str | None = None) -> AsyncIterator[list[dict[str, Any]]]:
    after: int | None = -1
    while after is not None:
        asked = {"home": home, "after": after, "limit": _PAGE, "tenant": tenant}
        page = await connection.call("GET", path("/v1/audit", asked))
        if page["rows"]:
            yield page["rows"]
        after = page["next"]


async def _rows(tenant: str | None, since: float, status: str | None, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    before: str | None = ""
    async with sink() as connection:
        while len(found) < limit and before is not None:
            asked = {"tenant": tenant, "since": since, "before": before or None, "status": status, "limit": min(_PAGE, limit - len(found))}
            page = await connection.call("GET", path("/v1/usage/jobs", asked))
            found += [row | {"ended": moment(row["finished_at"]) if "finished_at" in row else "live"} for row in page["rows"]]
            before = page["next"]
    return found
