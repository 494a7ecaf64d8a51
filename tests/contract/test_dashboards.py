"""The Grafana dashboards: every expression is PromQL by Prometheus's own grammar, of declared metrics, with labels that they have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest

from infra.dashboards.boards import BOARDS, RATE, Board, render
from infra.native.http import answers
from infra.native.ports import free_ports
from infra.native.waiting import wait_until
from tests.contract.test_alerts import LABELS
from tests.support.native import missing

FOLDER = Path(__file__).parents[2] / "infra/dashboards"
OF_SCRAPES = {"instance", "job", "le"}
"""Labels that Prometheus itself gives, and those of histograms' buckets."""
EXPRESSIONS = [(board.uid, panel.title, expr) for board in BOARDS for panel in board.panels for expr in panel.shows.values()]


def known() -> dict[str, set[str]]:
    """Series as they are scraped → labels."""
    found = {name: labels | OF_SCRAPES for name, labels in LABELS.items()}
    found |= {f"{name}_{part}": labels for name, labels in found.items() for part in ("bucket", "sum", "count")}
    return found | {"up": OF_SCRAPES}


def nodes(tree: Any) -> Iterator[Any]:
    """All parts of an expression."""
    yield tree
    for name in ("expr", "lhs", "rhs", "vector_selector", "vs", "args"):
        part = getattr(tree, name, None)
        for one in part if isinstance(part, list) else [part] if part is not None else []:
            yield from nodes(one)


@pytest.mark.parametrize(("board", "title", "expression"), EXPRESSIONS)
def test_every_expression_is_of_declared_metrics(board: str, title: str, expression: str) -> None:
    """Grouped and filtered by labels that they have, too."""
    tree = promql_parser.parse(expression.replace(RATE, "5m"))
    names = known()
    selectors = [(part.name or "", part.matchers) for part in nodes(tree) if isinstance(part, promql_parser.VectorSelector)]
    assert selectors, (board, title)
    for name, matchers in selectors:
        assert name in names, (board, title, name)
        assert {matcher.name for matcher in matchers.matchers} <= names[name]
    labels = set.intersection(*(names[name] for name, _ in selectors))
    grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    assert grouped <= labels, (board, title, grouped - labels)
    legend = next(
        legend
        for each in BOARDS
        for panel in each.panels
        for legend, expr in panel.shows.items()
        if (each.uid, expr) == (board, expression)
    )
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= grouped | ({"instance"} if expression.startswith("up") else set())


@pytest.mark.parametrize("board", BOARDS)
def test_the_files_are_what_is_said_and_fit_the_grid(board: Board) -> None:
    """No two panels share a place."""
    made = json.loads((FOLDER / f"{board.uid}.json").read_text())
    assert made == json.loads(json.dumps(render(board)))
    taken: set[tuple[int, int]] = set()
    for panel in made["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["title"] for panel in made["panels"]}) == len(made["panels"])


def test_a_running_prometheus_takes_every_expression(tmp_path: Path) -> None:
    """As a query, where there is a Prometheus; without data each is empty, not wrong."""
    server = shutil.which("prometheus")
    if server is None:
        missing("prometheus", "there is no prometheus on the PATH (Debian: prometheus)")
    (tmp_path / "p.yml").write_text("global: {}\n")
    port = free_ports(1)[0]
    options = [f"--config.file={tmp_path}/p.yml", f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}"]
    with subprocess.Popen([server, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            base = f"http://127.0.0.1:{port}"

            assert wait_until(lambda: answers(f"{base}/-/ready"), 30.0)
            for board, title, expression in EXPRESSIONS:
                query = urllib.parse.urlencode({"query": expression.replace(RATE, "5m")})
                assert httpx.get(f"{base}/api/v1/query?{query}", timeout=10).json()["status"] == "success", (board, title)
        finally:
            running.terminate()
