"""All generated files as texts by path, written or compared. Deterministic: the same code gives the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from infra.dashboards import boards
from infra.schemas import chart, readme, settings
from infra.schemas.asyncapi import document
from infra.schemas.messages import messages, schema
from shared.contracts.base import VERSION
from shared.patterns import BUILT_IN
from shared.telemetry import metrics
from shared.topics import Topics, TopicSettings

_MESSAGES, _PATTERNS, _DASHBOARDS = "schemas/messages", "schemas/patterns", "infra/dashboards"


def render(root: Path) -> dict[str, str]:
    """Path relative to `root` → content."""
    files = {f"{_MESSAGES}/{name}.json": _json(schema(kind)) for name, kind in messages().items()}
    files |= {f"{_PATTERNS}/{name}.json": _json(schema(pattern.input)) for name, pattern in BUILT_IN.current.items()}
    files |= {f"{_DASHBOARDS}/{board.uid}.json": _json(boards.render(board)) for board in boards.BOARDS}
    files["schemas/asyncapi.yaml"] = yaml.safe_dump(document(), sort_keys=False, allow_unicode=True, width=140)
    files["schemas/topics.json"] = _json(_topics())
    files["schemas/metrics.md"] = _metrics()
    files[settings.PATH] = settings.page()
    files[readme.PATH] = readme.page()
    files["README.md"] = readme.generated((root / "README.md").read_text(encoding="utf-8"), root)
    files[chart.PATH] = chart.generated((root / chart.PATH).read_text(encoding="utf-8"))
    return files


def stale(root: Path) -> list[str]:
    """Paths whose content is missing, differs, or should not be there."""
    expected = render(root)
    differing = [path for path, content in expected.items() if _read(root / path) != content]
    return sorted(differing + [path for path in _present(root) if path not in expected])


def write(root: Path) -> list[str]:
    """Bring every generated file up to date; returns the paths that changed."""
    expected, changed = render(root), stale(root)
    for path in changed:
        target = root / path
        if path in expected:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(expected[path], encoding="utf-8")
        else:
            target.unlink()
    return changed


def _metrics() -> str:
    """A table of all that services count."""
    head = ["What services tell Prometheus at `/metrics`: generated out of `shared/telemetry/metrics.py`.", ""]
    head += ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    return "\n".join([*head, *(f"| `{name}` | {kind} | {labels} | {about} |" for name, kind, labels, about in metrics.docs())]) + "\n"


def _present(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for folder in (_MESSAGES, _PATTERNS, _DASHBOARDS) for path in (root / folder).glob("*.json")]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _topics() -> dict[str, Any]:
    topics = Topics(TopicSettings())
    return {
        "version": VERSION,
        "topics": [
            {
                "name": topic.name,
                "family": topic.family.pattern,
                "about": topic.family.about,
                "key": topic.family.key,
                "partitions": topic.partitions,
                "config": topics.config(topic),
                "written_by": list(topic.family.written_by),
                "read_by": list(topic.family.read_by),
                "messages": list(topic.family.messages),
            }
            for topic in topics.all()
        ],
    }
