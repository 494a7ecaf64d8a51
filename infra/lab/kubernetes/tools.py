"""What `make helm-check` stands on, from package managers alone, in the cache.

    bin/helm                built by `go install`
    bin/kubebox             etcd, API server, controller manager, scheduler and kubectl of one Kubernetes release, in one program
    bin/kwok, stages.yaml   plays the kubelets: pods become ready at once, and no container runs
    crds/                   the resources of KEDA and of the Prometheus operator
    keda/                   KEDA's own source of the two triggers, by which their metadata are checked
    schemas/                Kubernetes' JSON schemas, strict

Each part is made once; an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from infra.lab import golang
from infra.lab.ollama_build import debian
from infra.native import install
from infra.native.errors import NativeError
from infra.native.paths import locked, writing
from infra.native.wheels import install_into

KUBERNETES = "1.36.3"
HELM, KWOK, KEDA, OPERATOR = "3.22.0", "0.8.0", "2.21.0", "0.85.0"
_SCHEMAS = (  # the files are all that is used of it
    "kubernetes-validate==1.37.0 --hash=sha256:85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9",
)
BUILD_SECONDS = 1_500.0
"""The control plane takes nine minutes to build on two idle cores."""
_STAGES = ("pod/fast/pod-*.yaml", "node/fast/node-initialize.yaml", "node/heartbeat-with-lease/*lease.yaml")
_CRDS = (
    "keda.sh_scaledobjects",
    "keda.sh_triggerauthentications",
    "monitoring.coreos.com_servicemonitors",
    "monitoring.coreos.com_prometheusrules",
)

Say = Callable[[str], None]


class Tools:
    """Where the parts lie, below `cache`."""

    def __init__(self, cache: Path) -> None:
        self.root = cache / f"kubernetes-{KUBERNETES}"
        self.bin = self.root / "bin"
        self.stages = self.root / "stages.yaml"
        self.crds = self.root / "crds"
        self.keda = self.root / "keda"
        self.schemas = self.root / "schemas"
        self.prometheus = cache / "prometheus-sid" / "usr" / "bin" / "prometheus"
        """Of Debian; one on the PATH is as good."""
        self._cache = cache

    def present(self) -> bool:
        """Whether everything but Prometheus is there."""
        programs = [self.bin / name for name in ("helm", "kubebox", "kwok")]
        return all(path.exists() for path in (*programs, self.stages, self.crds, self.keda, self.schemas))

    def find_prometheus(self) -> str | None:
        """A Prometheus that this machine has."""
        return shutil.which("prometheus") or (str(self.prometheus) if self.prometheus.exists() else None)

    def install(self, say: Say) -> None:
        """Make what is missing. Raises MissingTool or StartFailed; a Prometheus that cannot be had is only told."""
        with writing(), locked(self._cache / "kubernetes.lock"):
            if not self.present():
                self._make(golang.find_go("Helm and Kubernetes' control plane"), say)
            if self.find_prometheus() is None:
                say("fetching Prometheus")
                try:
                    debian.unpack(("prometheus",), debian.SUITE, self.prometheus.parents[2])
                except NativeError as error:
                    say(f"NOT TESTED: queries of a real Prometheus: {error.message}")
        say(f"Helm {HELM} and Kubernetes {KUBERNETES} are there: {self.root}")

    def _make(self, go: str, say: Say) -> None:
        install.provide(install.Need("openssl", ("openssl",), "the API server signs with a key of its own"))
        self._files(go)
        if not self.schemas.exists():
            say("fetching Kubernetes' schemas")
            self._fetch_schemas()
        minor = KUBERNETES.split(".")[1]
        capabilities = " ".join(
            f"-X helm.sh/helm/v3/pkg/{package}.k8sVersion{part}={value}"
            for package in ("chartutil", "lint/rules")
            for part, value in (("Major", "1"), ("Minor", minor))
        )
        self._install(
            go, say, "helm", f"helm.sh/helm/v3/cmd/helm@v{HELM}", f"{capabilities} -X helm.sh/helm/v3/internal/version.version=v{HELM}"
        )
        self._install(go, say, "kwok", f"sigs.k8s.io/kwok/cmd/kwok@v{KWOK}", "")
        if not (self.bin / "kubebox").exists():
            say(f"building the control plane of Kubernetes {KUBERNETES} (minutes, once)")
            self._kubebox(go)

    def _install(self, go: str, say: Say, name: str, package: str, flags: str) -> None:
        if not (self.bin / name).exists():
            say(f"building {name} (minutes, once)")
            golang.run([go, "install", "-ldflags", f"-s -w {flags}", package], self._environment(), BUILD_SECONDS)

    def _environment(self) -> dict[str, str]:
        return {"GOBIN": str(self.bin), "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false"}

    def _kubebox(self, go: str) -> None:
        """Kubernetes is no module that others may ask for: its parts are named with its own versions."""
        source = self.root / "kubebox"
        source.mkdir(parents=True, exist_ok=True)
        (source / "main.go").write_text(Path(__file__).with_name("kubebox.go").read_text())
        required = (golang.module(go, f"k8s.io/kubernetes@v{KUBERNETES}") / "go.mod").read_text()
        parts = re.findall(r"(k8s\.io/[a-z-]+) => \./staging", required)
        replaced = "".join(f"\t{part} => {part} v0.{KUBERNETES.removeprefix('1.')}\n" for part in parts)
        (source / "go.mod").write_text(
            f"module kubebox\n\ngo 1.26.0\ngodebug default=go1.26\n\nrequire k8s.io/kubernetes v{KUBERNETES}\n\nreplace (\n{replaced})\n"
        )
        golang.run([go, "mod", "tidy", "-e"], self._environment(), BUILD_SECONDS, source)
        major, minor, _ = KUBERNETES.split(".")
        told = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor}
        flags = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in told.items())
        built = source / "kubebox"
        golang.run([go, "build", "-ldflags", f"-s -w {flags}", "-o", str(built), "."], self._environment(), BUILD_SECONDS, source)
        built.replace(self.bin / "kubebox")

    def _files(self, go: str) -> None:
        """What others' modules carry besides code."""
        kwok, keda = golang.module(go, f"sigs.k8s.io/kwok@v{KWOK}"), golang.module(go, f"github.com/kedacore/keda/v2@v{KEDA}")
        operator = golang.module(go, f"github.com/prometheus-operator/prometheus-operator@v{OPERATOR}")
        self.crds.mkdir(parents=True, exist_ok=True)
        for folder in (keda / "config/crd/bases", operator / "example/prometheus-operator-crd"):
            for path in folder.glob("*.yaml"):
                if path.stem in _CRDS:
                    (self.crds / path.name).write_text(path.read_text())
        self.keda.mkdir(exist_ok=True)
        for name in ("kafka_scaler.go", "prometheus_scaler.go"):
            (self.keda / name).write_text((keda / "pkg/scalers" / name).read_text())
        found = [path.read_text() for pattern in _STAGES for path in sorted((kwok / "kustomize/stage").glob(pattern))]
        self.stages.write_text("\n---\n".join(found))

    def _fetch_schemas(self) -> None:
        target = self.root / "wheel"
        install_into(target, _SCHEMAS)
        version = ".".join((*KUBERNETES.split(".")[:2], "0"))
        (target / "kubernetes_validate" / "kubernetes-json-schema" / f"v{version}-local-strict").rename(self.schemas)
        shutil.rmtree(target)
