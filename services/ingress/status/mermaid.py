"""A job's tree as a Mermaid flowchart: a call follows the one before it, a gather's branches begin at the gather. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from shared.tree import StepStatus, Tree, TreeNode

MEDIA_TYPE = "text/vnd.mermaid"
_ODD = re.compile(r"[^\w .,:/+-]")
_STYLES = {"failed": "stroke:#c00", "abandoned": "stroke-dasharray:4", "running": "stroke:#06c", "critical": "stroke-width:3px"}


def mermaid(tree: Tree) -> str:
    """The text of the chart."""
    return "\n".join(["flowchart TD", *(f"  {line}" for line in _lines(tree))]) + "\n"


def _lines(tree: Tree) -> Iterator[str]:
    took = [] if tree.seconds is None else [f"{tree.seconds:g} s"]
    yield f'job(["{_text(tree.pattern or "job", tree.status or tree.state, *took)}"])'
    classes: dict[str, list[str]] = {}
    last: dict[str | None, str] = {None: "job"}
    """Gather or branch → what its next node follows."""
    for number, node in enumerate(tree.nodes):
        name = f"n{number}"
        before = last.get(node.parent, "job")
        if node.kind == "branch":
            last[node.path] = before
            continue
        yield f"{name}{_shape(node)}"
        yield f"{before} --> {name}"
        last[node.parent] = name
        last[node.path] = name
        for style in ("critical" if node.critical else "", node.step.state if node.step else ""):
            if style in _STYLES:
                classes.setdefault(style, []).append(name)
    for style, names in classes.items():
        yield f"classDef {style} {_STYLES[style]}"
        yield f"class {','.join(names)} {style}"


def _shape(node: TreeNode) -> str:
    if node.step is None:
        return '{{"gather"}}'
    if node.kind == "pause":
        return f'(["{_text("pause", node.step.state)}"])'
    return f'["{_text(node.step.agent or "step", _became(node.step), *_figures(node.step))}"]'


def _became(step: StepStatus) -> str:
    return f"{step.state} {'by' if step.state == 'answered' else 'on'} {step.nodes[-1]}" if step.nodes else step.state


def _figures(step: StepStatus) -> Iterator[str]:
    if step.attempt > 1:
        yield f"attempt {step.attempt}"
    if step.seconds is not None:
        yield f"{step.seconds:g} s"
    if step.usage is not None:
        yield f"{step.usage.prompt_tokens + step.usage.completion_tokens} tokens"


def _text(*lines: str) -> str:
    """Names are anybody's: what the chart could read as its own is written as a number."""
    return "<br/>".join(_ODD.sub(lambda found: f"#{ord(found[0])};", line) for line in lines)
