"""The images that stand in for those of the registries, each made once: two Debian roots, and what images/*.Dockerfile puts on them."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from infra.lab.compose.engine import Engine
from infra.lab.golang import run
from infra.lab.ollama_build import debian
from infra.native import install, kafka, ollama_server
from infra.native.errors import MissingTool
from infra.native.install import Need
from infra.native.redis import find_redis
from infra.native.wheels import pinned

RELEASE, PYTHON = "bookworm", "3.11"
"""The release whose Python is the one that the Dockerfile names."""
BUILD_SECONDS = 1_200.0
ROOT = Path(__file__).parents[3]
_FOLDER = Path(__file__).parent / "images"
_ROOTS = {
    "python": ("python3", "python3-venv", "ca-certificates"),
    "java": ("ca-certificates", "openjdk-17-jre-headless", "redis-tools", "libstdc++6"),
}
_STAND_IN = ("secantusdb", "pymongo", "dnspython", "python-dateutil", "six", "s2sphere", "future", "shapely", "numpy")
"""SecantusDB and all that it needs."""
_MMDEBSTRAP = Need("mmdebstrap", ("mmdebstrap",), "the images' root file systems are made by it")

Say = Callable[[str], None]


class Images:
    """Made in `engine`, of downloads in `cache`."""

    def __init__(self, engine: Engine, cache: Path, say: Say) -> None:
        self._engine, self._cache, self._say = engine, cache, say
        self._work = engine.root / "work"

    def make(self) -> None:
        """Those that are missing. Raises MissingTool or StartFailed."""
        for name, packages in _ROOTS.items():
            self._root(name, packages)
        parts: dict[str, Callable[[Path], None]] = {
            "builder": self._wheels_of_the_services,
            "kafka": self._kafka,
            "redis": lambda context: _copy(Path(find_redis()), context / "redis-server"),
            "mongodb": self._wheels_of_the_stand_in,
            "prometheus": self._prometheus,
        }
        if self.has_ollama():
            parts["ollama"] = self._ollama
        for name, fill in parts.items():
            self._image(name, fill)

    def has_ollama(self) -> bool:
        """Whether `make ollama` has been here."""
        return ollama_server.installed(self._cache).exists()

    def _root(self, name: str, packages: tuple[str, ...]) -> None:
        """Debian's own, without what nobody reads there."""
        recipe = _digest([RELEASE, *packages])
        if self._engine.has(f"tutti-local/{name}", recipe):
            return
        install.provide(_MMDEBSTRAP)
        self._say(f"a Debian root with {', '.join(packages)} (a minute, once)")
        self._work.mkdir(parents=True, exist_ok=True)
        archive = self._work / f"{name}.tar"
        quiet = ("-q", "--mode=root", "--variant=minbase", '--aptopt=APT::Install-Recommends "false"')
        unread = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "locale")]
        named = ["--customize-hook=[ ! -e $1/usr/bin/python3 ] || ln -s python3 $1/usr/bin/python"]  # as Docker's own image calls it
        source = f"deb {debian.mirror()} {RELEASE} main"
        run(["mmdebstrap", *quiet, *unread, *named, f"--include={','.join(packages)}", RELEASE, str(archive), source], {}, BUILD_SECONDS)
        self._engine.docker("import", "--change", f"LABEL recipe={recipe}", str(archive), f"tutti-local/{name}", seconds=BUILD_SECONDS)
        archive.unlink()

    def _image(self, name: str, fill: Callable[[Path], None]) -> None:
        files = sorted(_FOLDER.glob(f"{name}.*"))
        recipe = _digest([*(path.read_text() for path in files), *self._content(name)])
        if self._engine.has(f"tutti-local/{name}", recipe):
            return
        self._say(f"the image tutti-local/{name}")
        context = self._work / name
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir(parents=True)
        fill(context)
        for path in files:
            shutil.copy(path, context)
        dockerfile = str(context / f"{name}.Dockerfile")
        told = ("--build-arg", f"ROOT={self._cache / 'ollama'}") if name == "ollama" else ()
        arguments = ("--label", f"recipe={recipe}", "-t", f"tutti-local/{name}", "-f", dockerfile, *told, str(context))
        self._engine.docker("build", "-q", *arguments, seconds=BUILD_SECONDS)
        shutil.rmtree(context)

    def _content(self, name: str) -> Iterable[str]:
        """By which another one has to be made."""
        if name == "builder":
            return [(ROOT / "requirements-image.lock").read_text(), _backend()]
        if name == "mongodb":
            return _stand_in()
        return [kafka.VERSION] if name == "kafka" else []

    def _kafka(self, context: Path) -> None:
        _, jars = kafka.prepare(self._cache)
        _copy(jars, context / "jars")
        _copy(ROOT / "infra" / "native" / "broker" / "log4j2.properties", context / "log4j2.properties")

    def _ollama(self, context: Path) -> None:
        for part in ("bin", "lib", debian.SUITE, "models"):
            _copy(self._cache / "ollama" / part, context / part)

    def _prometheus(self, context: Path) -> None:
        program = self._cache / "prometheus-sid" / "usr" / "bin" / "prometheus"
        if not program.exists():
            debian.unpack(("prometheus",), debian.SUITE, program.parents[2])
        _copy(program, context / "prometheus")

    def _wheels_of_the_services(self, context: Path) -> None:
        lock = ROOT / "requirements-image.lock"
        self._download(context / "wheels", "--require-hashes", "--no-deps", "-r", str(lock))
        self._download(context / "wheels", _backend())

    def _wheels_of_the_stand_in(self, context: Path) -> None:
        wanted = context / "wanted.txt"
        wanted.write_text("\n".join(_stand_in()))
        self._download(context / "wheels", "--require-hashes", "--no-deps", "-r", str(wanted))

    def _download(self, target: Path, *what: str) -> None:
        """For the images' Python, whichever this one is."""
        run([*_pip(), "download", "-q", "--only-binary=:all:", "--python-version", PYTHON, "-d", str(target), *what], {}, BUILD_SECONDS)


def _backend() -> str:
    """What a wheel of this project is built with."""
    [required] = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    return str(required)


def _stand_in() -> list[str]:
    return list(pinned((ROOT / "requirements-dev.lock").read_text(), _STAND_IN))


def _pip() -> list[str]:
    """An environment that uv has made has none."""
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    uv = shutil.which("uv")
    if uv is None:
        raise MissingTool("pip is missing in this environment; make it anew with `make clean venv`")
    return [uv, "tool", "run", "pip"]


def _copy(source: Path, target: Path) -> None:
    """Without a second copy, where the file system can."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, copy_function=lambda one, other: _copy(Path(one), Path(other)))
        return
    with suppress(OSError):
        target.hardlink_to(source)
        return
    shutil.copy(source, target)


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
