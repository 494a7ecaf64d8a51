"""`tutti calibrate`: thresholds of patterns, from labelled answers of one's own traffic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeVar

import click
from pydantic import ValidationError

from infra.cli.curve import (
    NEVER,
    LabelledAnswer,
    Point,
    always_strong,
    always_weak,
    area_over_chance,
    at,
    auroc,
    by_chance,
    chosen,
    curve,
    drawn,
    margin,
    oracle,
)
from infra.cli.exits import CommandExit, Exit
from infra.cli.output import AS_JSON, emit_json, emit_table
from shared.contracts.bounds import explain

Labelled = TypeVar("Labelled")
MOST_LINES = 1_000_000
_DRAWN = (".png", ".svg")
_FEWEST = 20
_STEPS = 10
"""Lines of the table between nothing and all passed on."""


@click.group()
def calibrate() -> None:
    """Find thresholds from labelled answers."""


@calibrate.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--accuracy", type=click.FloatRange(0, 1), help="Wanted share of right answers; without it that of the strong model.")
@click.option(
    "--split", type=click.FloatRange(0.1, 0.9), default=0.5, show_default=True, help="Share of lines that the threshold is chosen on."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the split.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the curve into this file (.png, .svg).")
@AS_JSON
def cascade(file: Path, *, accuracy: float | None, split: float, seed: int, plot: Path | None, as_json: bool) -> None:
    """The threshold of a cascade, from FILE: JSON lines {"score", "weak_right", "strong_right", "weak_cost", "strong_cost"}.

    The threshold is chosen on one part of the lines; all figures are of the other part, which the choice has not seen.
    """
    told(measured(read(file), accuracy=accuracy, split=split, seed=seed), plot=plot, as_json=as_json)


class Measured(NamedTuple):
    """`found`: on the `tuned` lines, where it was chosen; `best`: the same threshold on the `unseen` ones."""

    tuned: Sequence[LabelledAnswer]
    unseen: Sequence[LabelledAnswer]
    wanted: float
    found: Point
    best: Point


def measured(items: Sequence[LabelledAnswer], *, accuracy: float | None, split: float, seed: int) -> Measured:
    """Choose on one part, measure on the other."""
    tuned, unseen = parted(items, split, seed)
    wanted = always_strong(tuned).right if accuracy is None else accuracy
    found = chosen(curve(tuned), wanted)
    return Measured(tuned, unseen, wanted, found, at(unseen, found.threshold))


def told(it: Measured, *, plot: Path | None, as_json: bool) -> None:
    """As tables or JSON, and drawn."""
    if plot is not None:
        draw(plot, lambda file: drawn(file, it.unseen, it.best))
    rows = named_points(it.unseen, it.best)
    reached = it.found.right >= it.wanted - 1e-12
    if as_json:
        emit_json(
            {
                "threshold": None if it.best.threshold == NEVER else it.best.threshold,
                "lines": {"chosen_on": len(it.tuned), "measured_on": len(it.unseen)},
                "wanted": it.wanted,
                "reached_where_chosen": reached,
                "auroc": auroc(it.unseen),
                "area_over_chance": area_over_chance(it.unseen),
                "points": {name: {"escalated": p.escalated, "right": p.right, "cost": p.cost} for name, p in rows},
                "curve": [point._asdict() for point in curve(it.unseen)],
            }
        )
        return
    emit_table(("", "threshold", "passed on", "right", "+-", "cost"), [_row(name, point, len(it.unseen)) for name, point in rows])
    click.echo()
    steps = [("", point) for point in thinned(curve(it.unseen))]
    emit_table(("curve", "threshold", "passed on", "right", "+-", "cost"), [_row(name, point, len(it.unseen)) for name, point in steps])
    click.echo()
    check = auroc(it.unseen)
    shown = "-" if check is None else f"{check:.3f}"
    click.echo(f"chosen on {len(it.tuned)} lines, measured on {len(it.unseen)} others; AUROC of the check {shown}")
    click.echo(f"area over passing on by chance {area_over_chance(it.unseen):+.4f}")
    if not reached:
        click.echo(f"no threshold reached {100 * it.wanted:.1f} % on the lines that it was chosen on; the most accurate one is shown")


def draw(file: Path, drawing: Callable[[Path], None]) -> None:
    """Raises CommandExit where that cannot be."""
    if file.suffix not in _DRAWN:
        raise CommandExit(Exit.USAGE, f"--plot names a file that ends in {' or '.join(_DRAWN)}")
    try:
        drawing(file)
    except ModuleNotFoundError:
        raise CommandExit(Exit.USAGE, "--plot needs matplotlib: pip install 'tutti-cluster[plot]'") from None


def read(file: Path) -> list[LabelledAnswer]:
    """The file's lines. Raises CommandExit that names the first that is not valid."""
    items: list[LabelledAnswer] = []
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            if len(items) == MOST_LINES:
                raise CommandExit(Exit.USAGE, f"more than {MOST_LINES} lines")
            try:
                items.append(LabelledAnswer.model_validate_json(line))
            except ValidationError as error:
                raise CommandExit(Exit.USAGE, f"line {number}: {explain(error, 'line', LabelledAnswer.model_fields)}") from None
    if len(items) < _FEWEST:
        raise CommandExit(Exit.USAGE, f"{len(items)} lines; at least {_FEWEST} are needed")
    return items


def parted(items: Sequence[Labelled], share: float, seed: int) -> tuple[list[Labelled], list[Labelled]]:
    """What the threshold is chosen on, and what it is measured on: drawn by the seed, none in both, none of them empty."""
    mixed = Random(seed).sample(items, len(items))
    cut = round(share * len(items))
    return mixed[:cut], mixed[cut:]


def named_points(items: Sequence[LabelledAnswer], best: Point) -> list[tuple[str, Point]]:
    """What the chosen threshold is compared with."""
    return [
        ("chosen", best),
        ("by chance, as many", by_chance(items, best.escalated)),
        ("always weak", always_weak(items)),
        ("always strong", always_strong(items)),
        ("perfect check", oracle(items)),
    ]


def thinned(points: Sequence[Point]) -> list[Point]:
    """Some of them, evenly by the share that is passed on, with both ends."""
    near: dict[Point, None] = {}
    for step in range(_STEPS + 1):
        _, point = min((abs(point.escalated - step / _STEPS), point) for point in points)
        near[point] = None
    return list(near)


def _row(name: str, point: Point, count: int) -> tuple[str, ...]:
    threshold = "-" if point.threshold != point.threshold else "over 1" if point.threshold == NEVER else f"{point.threshold:.3f}"
    right = f"{100 * point.right:.1f} %"
    return name, threshold, f"{100 * point.escalated:.1f} %", right, f"{100 * margin(point.right, count):.1f}", f"{point.cost:.4g}"
