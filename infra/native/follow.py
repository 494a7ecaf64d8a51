"""Log files of several components as one stream of lines, like tail -f."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import IO

from infra.native.processes import tail

POLL_SECONDS = 0.2


def last_lines(logs: Mapping[str, Path], count: int) -> Iterator[tuple[str, str]]:
    """(component, line): the last `count` lines of each file."""
    for component, path in logs.items():
        for line in tail(path, count).splitlines():
            yield component, line


def follow(logs: Mapping[str, Path], pause: Callable[[float], None] = time.sleep) -> Generator[tuple[str, str], None, None]:
    """(component, line) as lines are completed, from now on, until interrupted; `pause` is called when there is nothing new."""
    opened = {component: path.open(errors="replace") for component, path in logs.items()}
    try:
        for handle in opened.values():
            handle.seek(0, 2)
        while True:
            found = False
            for component, handle in opened.items():
                for line in _completed(handle):
                    found = True
                    yield component, line
            if not found:
                pause(POLL_SECONDS)
    finally:
        for handle in opened.values():
            handle.close()


def _completed(handle: IO[str]) -> Iterator[str]:
    """Whole lines only: the rest of a line that is being written comes next time."""
    while True:
        position = handle.tell()
        line = handle.readline()
        if not line.endswith("\n"):
            handle.seek(position)
            return
        yield line.rstrip("\n")
