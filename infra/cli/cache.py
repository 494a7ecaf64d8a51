"""`tutti cache`: what the cache holds, through its HTTP API: how much, what to purge, what never to serve again; and which
threshold semantic hits need.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import hypot
from pathlib import Path
from typing import Any

import click

from infra.cli.calibrate import draw, parted
from infra.cli.exits import CommandExit, Exit
from infra.cli.likeness import LabelledPair, chosen, drawn, level, levels, read_pairs, scored
from infra.cli.output import AS_JSON, emit_json, emit_table
from infra.cli.rest import api
from shared.errors import InvalidInput

_TEXTS = 4
"""Embeddings of one answer that is not too large to stand in its record."""


@click.group()
def cache() -> None:
    """Answers that may be served again."""


@cache.command()
@AS_JSON
def stats(*, as_json: bool) -> None:
    """Entries, bytes, what was evicted."""
    found = asyncio.run(_ask("GET", "/v1/cache"))
    if as_json:
        emit_json(found)
    else:
        emit_table(("what", "count"), sorted(found.items()), empty="no store is named (TUTTI_CACHE__STORE)")


@cache.command()
@click.option("--tenant", help="Of this tenant.")
@click.option("--model", help="Of this model, by its full name.")
@click.option("--tag", help="Of jobs that named this tag.")
@click.option("--document", help="Of jobs that named this document.")
@click.option("--yes", is_flag=True, help="Do it; without this only the entries are counted.")
def purge(*, yes: bool, **which: str | None) -> None:
    """Take entries away: those of which all that is named holds."""
    named = {name: value for name, value in which.items() if value is not None}
    if not named:
        raise CommandExit(Exit.USAGE, "say of which tenant, model, tag or document")
    found = asyncio.run(_ask("POST", "/v1/cache/purge", {**named, "dry_run": not yes}))
    click.echo(f"{found['entries']} entries {'purged' if yes else 'would be purged; --yes does it'}")


@cache.command()
@click.argument("entry")
@click.option("--hours", type=click.FloatRange(min=0.01, max=720), default=24.0, show_default=True, help="For so long.")
def bar(*, entry: str, hours: float) -> None:
    """Serve this entry no more (`served.entry` of an answer), nor take one in its place."""
    found = asyncio.run(_ask("POST", "/v1/cache/bar", {"entry": entry, "seconds": hours * 3_600}))
    click.echo("barred" if found["was_there"] else "barred; it was not there")


@cache.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", default="all-minilm", show_default=True, help="The embedder that the cluster is asked for.")
@click.option(
    "--error", type=click.FloatRange(0, 0.5), default=0.01, show_default=True, help="Share of different pairs that may be served."
)
@click.option("--split", type=click.FloatRange(0.1, 0.9), default=0.5, show_default=True, help="Share of pairs to choose on.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the split.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw precision over recall into this file (.png, .svg).")
@AS_JSON
def calibrate(*, file: Path, model: str, error: float, split: float, seed: int, plot: Path | None, as_json: bool) -> None:
    """The threshold of semantic hits, from FILE: JSON lines or CSV {"asked", "stored", "same"} or {"question", "answer"}.

    A pair may have its `similarity` with it; of others the cluster's embedder is asked. The threshold is chosen on one part of the pairs;
    all figures are of the other part.
    """
    try:
        pairs = read_pairs(file)
    except InvalidInput as bad:
        raise CommandExit(Exit.USAGE, bad.message) from None
    tuned, unseen = parted(scored(pairs, asyncio.run(_similarities(pairs, model))), split, seed)
    best = level(unseen, chosen(tuned, error).threshold, vetoes=True)
    if plot is not None:
        draw(plot, lambda named: drawn(named, unseen, best))
    alone = level(unseen, best.threshold, vetoes=False)
    if as_json:
        emit_json({
            "chosen_on": len(tuned), "measured_on": len(unseen), "chosen": best._asdict(), "similarity_alone": alone._asdict(),
            "curve": [one._asdict() for one in levels(unseen, vetoes=True)],
        })  # fmt: skip
        return
    marks = [("chosen", best), ("the same, similarity alone", alone)]
    curves = [("with vetoes" if vetoes else "similarity alone", vetoes) for vetoes in (True, False)]
    rows = [(name, one) for name, vetoes in curves for one in levels(unseen, vetoes=vetoes)[::5]]
    titles = ("", "threshold", "precision", "recall", "false hits", "at most (95 %)")
    emit_table(titles, [(name, *(f"{number:.3f}" for number in one)) for name, one in (*marks, *rows)])
    click.echo(f"chosen on {len(tuned)} pairs, measured on {len(unseen)} others; TUTTI_CACHE__THRESHOLD={best.threshold:.2f}")


async def _similarities(pairs: Sequence[LabelledPair], model: str) -> list[float]:
    """Those that the pairs have, else by the cluster's embedder, a few texts a job."""
    texts = list(dict.fromkeys(text for pair in pairs if pair.similarity is None for text in (pair.asked, pair.stored)))
    vectors: dict[str, Sequence[float]] = {}
    if texts:
        async with api() as connection:
            for first in range(0, len(texts), _TEXTS):
                some = texts[first : first + _TEXTS]
                status = await connection.call("POST", "/v1/jobs?wait=60", {"texts": some, "model": model})
                answer = (status.get("result") or {}).get("answer") or {}
                made = answer.get("embeddings") or ()
                if len(made) != len(some):
                    raise CommandExit(Exit.FAILED, f"the cluster made no embeddings by {model} within a minute (job {status.get('id')})")
                vectors.update(zip(some, made, strict=True))
    return [_cosine(vectors[pair.asked], vectors[pair.stored]) if pair.similarity is None else pair.similarity for pair in pairs]


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / max(1e-9, hypot(*one) * hypot(*other))


async def _ask(method: str, path: str, body: Any = None) -> Any:
    async with api(who="cache") as connection:
        return await connection.call(method, path, body)
