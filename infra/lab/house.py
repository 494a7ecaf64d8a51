"""`python -m infra.lab.house [FOLDER]`: lines and files by part, public classes, long functions, support, runs said twice.

Of the checkout in FOLDER, so that two commits can be laid beside one another. Ways through the code: `python -m infra.lab.walk`.
Figures: decision 0026.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import click

PARTS = ("services", "shared", "infra", "infra/lab", "tests", "tests/support")
RUN = 8
"""So many lines that stand in two services are said twice."""
LONG = 70


def count(root: Path) -> dict[str, float]:
    """Name of a figure → it."""
    texts = {part: {path: path.read_text() for path in sorted((root / part).rglob("*.py"))} for part in PARTS}
    found: dict[str, float] = {}
    for part, files in texts.items():
        found[f"{part}: files"], found[f"{part}: lines"] = len(files), sum(_lines(text) for text in files.values())
    product = texts["services"] | texts["shared"]
    lines = found["services: lines"] + found["shared: lines"]
    trees = {path: ast.parse(text) for path, text in (product | texts["infra"]).items()}
    classes = sum(isinstance(node, ast.ClassDef) and not node.name.startswith("_") for path in product for node in trees[path].body)
    found["public classes per 1,000 lines of services and shared"] = round(1_000 * classes / lines, 2)
    found["support to services and shared"] = round(found["tests/support: lines"] / lines, 4)
    found[f"functions of more than {LONG} lines"] = sum(
        (node.end_lineno or node.lineno) - node.lineno >= LONG
        for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )  # fmt: skip
    found[f"runs of {RUN} lines in two services"] = len(twice({path.relative_to(root): text for path, text in texts["services"].items()}))
    return found


def twice(files: dict[Path, str]) -> list[tuple[str, str]]:
    """Where runs of lines of one service stand again in another one: (place, place), each run once. Imports are no logic."""
    places = defaultdict(list)
    for path, text in files.items():
        code = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        code = [(number, line) for number, line in code if not line.startswith(("from ", "import ", "#"))]
        for first in range(len(code) - RUN + 1):
            places["\n".join(line for _, line in code[first : first + RUN])].append((path, code[first][0], first))
    pairs = [
        (one, other) for found in places.values() for one in found for other in found if one[0].parts[1] < other[0].parts[1]
    ]  # fmt: skip
    return list(_longest(pairs))


def _longest(pairs: list[tuple[tuple[Path, int, int], tuple[Path, int, int]]]) -> Iterator[tuple[str, str]]:
    """A run that goes on is one: pairs of places that move together."""
    ordered = sorted(pairs, key=lambda pair: (pair[0][0], pair[1][0], pair[0][2] - pair[1][2], pair[0][2]))
    for (one, other, _), run in groupby(ordered, key=lambda pair: (pair[0][0], pair[1][0], pair[0][2] - pair[1][2])):
        first = next(run)
        yield f"{one}:{first[0][1]}", f"{other}:{first[1][1]}"


def _lines(text: str) -> int:
    return len(text.splitlines())


@click.command()
@click.argument("root", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(root: Path) -> None:
    """The house, counted."""
    for name, figure in count(root).items():
        click.echo(f"{figure:>10,g}  {name}")


if __name__ == "__main__":
    main()
