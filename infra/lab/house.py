"""`python -m infra.lab.house [FOLDER]`: lines and files by part, public classes, long functions, support, runs said twice.

Of the checkout in FOLDER, so that two commits can be laid beside one another. Ways through the code: `python -m infra.lab.walk`.
Figures: decision 0026.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import click

from infra.cli.exits import Program

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


def twice(files: dict[Path, str]) -> list[str]:
    """Runs of lines that stand in two services; a longer one counts for each of its lines that begins one. Imports are no logic."""
    services = defaultdict(set)
    for path, text in files.items():
        code = [line.strip() for line in text.splitlines() if not line.strip().startswith(("from ", "import ", "#"))]
        code = [line for line in code if line]
        for first in range(len(code) - RUN + 1):
            services["\n".join(code[first : first + RUN])].add(path.parts[1])
    return [run for run, found in services.items() if len(found) > 1]


def _lines(text: str) -> int:
    return len(text.splitlines())


@click.command(cls=Program)
@click.argument("root", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(root: Path) -> None:
    """The house, counted."""
    for name, figure in count(root).items():
        click.echo(f"{figure:>10,g}  {name}")


if __name__ == "__main__":
    main()
