"""The record of a bench: the JSON of a run that is kept, `infra/lab/records/<bench>.json`. Later runs say how they differ.

Only ratios, counts and CPU are comparable between machines; times and rates are so on one machine, when it is as quiet as it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "records"
FORMAT = 1
NOTICEABLE = 0.1
"""Changes below this share are not shown: runs on shared machines differ by as much."""


def recorded(bench: str) -> dict[str, Any] | None:
    """The record of this bench; None when there is none."""
    path = FOLDER / f"{bench}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def medians(summary: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Every figure of a document's summary, by its path: of `Summary` (numbers), or of spreads with a median."""
    found: dict[str, float] = {}
    for name, value in summary.items():
        if not isinstance(value, Mapping):
            found[prefix + name] = value
        elif "median" in value:
            found[prefix + name] = value["median"]
        else:
            found |= medians(value, f"{prefix}{name}/")
    return found


def comparison(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What differs noticeably between two documents of one bench."""
    if old.get("format") != FORMAT:
        yield f"the earlier file has format {old.get('format')}, not {FORMAT}: not compared"
        return
    machine = old["machine"]
    yield f"against {machine.get('commit')} of {machine.get('date')} on {machine.get('cpu')}, {machine.get('cores')} cores:"
    options = {name: (value, new["options"].get(name)) for name, value in old["options"].items() if value != new["options"].get(name)}
    if options:
        yield "  with other options: " + ", ".join(f"{name} {was} -> {now}" for name, (was, now) in options.items())
    before = _figures(old)
    for name, value in _figures(new).items():
        if before.get(name) and not _incidental(name) and abs(change := value / before[name] - 1) >= NOTICEABLE:
            yield f"  {name}: {before[name]:.4g} -> {value:.4g} ({change:+.0%})"


def _figures(document: Mapping[str, Any]) -> dict[str, float]:
    """Of a document without a summary (chaos: one run) its own numbers."""
    numbers = {name: value for name, value in document.items() if isinstance(value, int | float)}
    return medians(document.get("summary", numbers))


def _incidental(name: str) -> bool:
    """What is large in number and says little of itself."""
    return name.endswith("/count") or "resident_mb." in name
