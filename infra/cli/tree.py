"""How a job's tree is drawn for people: box characters, colours where they are wanted, one line a step. Pure, but for `Canvas`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from typing import TextIO

import click

from infra.cli.output import cell, moment, size
from shared.contracts.usage import Usage
from shared.tree import StepStatus, Tree, TreeNode

_COLOURS = {"answered": "green", "running": "cyan", "failed": "red", "retrying": "yellow", "unplaced": "yellow", "unfunded": "yellow"}


def draw(tree: Tree, *, colour: bool = False, width: int | None = None) -> list[str]:
    """The lines of the drawing, each of at most so many characters. `*` marks what decided how long the job took."""
    rows = list(_rows(tree))
    column = max((len(left) for left, _ in rows), default=0)
    lines = [headline(tree)[:width]]
    for left, node in rows:
        line = (left if node.step is None else f"{left.ljust(column)}  {became(node.step)}")[:width]
        state = "" if node.step is None else node.step.state
        lines.append(click.style(line, fg=_COLOURS.get(state), dim=state == "abandoned" or None) if colour and state else line)
    if any(node.critical for node in tree.nodes):
        lines.append(f"* decided how long it took: {tree.critical_seconds:g} s"[:width])
    if not tree.whole:
        lines.append("steps are missing here: the job's history is kept for a while only"[:width])
    return lines


def headline(tree: Tree) -> str:
    """The job in one line."""
    words = [tree.state if tree.status is None else tree.status]
    words += [] if tree.seconds is None else [f"{tree.seconds:g} s"]
    words += [_count(tree.steps, "step"), _count(tree.attempts, "attempt"), *_used(tree.usage)]
    return f"{cell(tree.id)} {cell(tree.pattern or 'job')}: {', '.join(words)}"


def became(step: StepStatus) -> str:
    """What became of a step, in a few words."""
    where = cell(step.nodes[-1]) if step.nodes else "a node"
    match step.state:
        case "answered":
            words = [f"answered by {where}"]
        case "running":
            words = [f"running on {where}"]
        case "retrying":
            words = [f"retrying after {cell(step.failures[-1] if step.failures else 'a failure')}"]
        case "failed":
            words = [f"failed: {cell(', '.join(step.failures[-3:]) or 'unknown')}"]
        case "unplaced":
            words = [f"waits for a node with {cell(', '.join(step.missing))}"]
        case "unfunded":
            words = ["waits for its tenant's budget"]
        case "asked":
            words = ["waits for a node"]
        case "sleeping":
            words = [f"sleeping until {moment(step.due_at or 0.0)}"]
        case other:
            words = [cell(other.replace("_", " "))]
    words += [f"attempt {step.attempt}"] if step.attempt > 1 else []
    if step.seconds is not None:
        waited = f" (waited {step.waited_seconds:g} s)" if step.waited_seconds else ""
        words.append(f"{step.seconds:g} s{waited}")
    words += [] if step.usage is None else _used(step.usage)
    words += [] if step.answer_bytes is None else [size(step.answer_bytes)]
    return ", ".join(words)


def changes(before: Tree | None, after: Tree) -> list[str]:
    """A line for each step of which there is news."""
    known = {} if before is None else {node.path: node.step for node in before.nodes}
    return [
        f"{cell(node.path)} {name(node)}: {became(node.step)}"
        for node in after.nodes
        if node.step is not None and node.step != known.get(node.path)
    ]


def name(node: TreeNode) -> str:
    """What stands at the branch's end."""
    return node.kind if node.step is None or node.kind == "pause" else cell(node.step.agent or "step")


def _used(usage: Usage) -> list[str]:
    tokens, words = usage.prompt_tokens + usage.completion_tokens, []
    if tokens or usage.calls:
        words.append(f"{tokens} tokens")
    if usage.wasted_tokens:
        words.append(f"{usage.wasted_tokens} wasted")
    if usage.cost:
        words.append(f"cost {usage.cost:.4g}")
    return words


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _rows(tree: Tree) -> Iterator[tuple[str, TreeNode]]:
    """What stands to the left of each line, and whose it is. A branch of one call is that call."""
    below: dict[str | None, list[TreeNode]] = {}
    for node in tree.nodes:
        below.setdefault(node.parent, []).append(node)
    todo = _siblings("", below.get(None, []))
    while todo:
        prefix, node, last = todo.pop()
        children = below.get(node.path, [])
        while node.kind == "branch" and len(children) == 1:
            node, children = children[0], below.get(children[0].path, [])
        yield f"{prefix}{'└─ ' if last else '├─ '}{name(node)}{' *' if node.critical else ''}", node
        todo += _siblings(prefix + ("   " if last else "│  "), children)


def _siblings(prefix: str, nodes: list[TreeNode]) -> list[tuple[str, TreeNode, bool]]:
    """The first one at the end."""
    return [(prefix, node, number == 0) for number, node in enumerate(reversed(nodes))]


class Canvas:
    """A tree on standard error: drawn over itself on a terminal, elsewhere a line for each change."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._height = 0
        self._last: Tree | None = None

    def show(self, tree: Tree) -> None:
        """Draw what is new. What is higher than the terminal loses its top: a line that has left it cannot be drawn over."""
        if not self._stream.isatty():
            lines = changes(self._last, tree)
        else:
            room = shutil.get_terminal_size()
            lines = draw(tree, colour=True, width=room.columns - 1)
            lines = lines if len(lines) < room.lines else [lines[0], *lines[2 - room.lines :]]
            if self._height:
                self._stream.write(f"\x1b[{self._height}A\x1b[J")
            self._height = len(lines)
        self._last = tree
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._stream.flush()
