"""Where things lie: the data of one checkout, and downloads shared by all checkouts of a user."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.native.errors import NativeError

REPOSITORY = Path(__file__).parents[2]
_REFUSALS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS})


@dataclass(frozen=True, slots=True)
class StackHome:
    """The data directory of one stack, `.tutti` by default. Subdirectories are made when first asked for."""

    root: Path

    def directory(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def log(self, component: str) -> Path:
        return self.directory("log") / f"{component}.log"

    def pid_file(self, component: str) -> Path:
        return self.directory("run") / f"{component}.json"

    def data(self, component: str) -> Path:
        return self.directory("data") / component


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on `path` (made if absent). Without `wait` raises NativeError when somebody else holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise NativeError(f"another command holds {path}; wait for it to end") from None
        yield


@contextmanager
def writing() -> Iterator[None]:
    """Raises NativeError where the operating system refuses a file; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise NativeError(
            f"a file could not be written: {error.strerror}{where}; data lies under TUTTI_HOME, downloads under TUTTI_CACHE"
        ) from error
