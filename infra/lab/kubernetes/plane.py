"""A real Kubernetes control plane on this machine; kwok plays its one node, so pods become ready and no container runs."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.lab.kubernetes.tools import Tools
from infra.native.errors import StartFailed
from infra.native.ports import free_ports
from infra.native.processes import Daemon

START_SECONDS = 120.0
COMMAND_SECONDS = 180.0
_NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {
        "name": "kwok-0",
        "annotations": {"kwok.x-k8s.io/node": "fake"},
        "labels": {"type": "kwok", "kubernetes.io/os": "linux", "kubernetes.io/hostname": "kwok-0"},
    },
    "status": {
        "allocatable": {"cpu": "32", "memory": "256Gi", "pods": "110", "nvidia.com/gpu": "8"},
        "capacity": {"cpu": "32", "memory": "256Gi", "pods": "110", "nvidia.com/gpu": "8"},
    },
}


class ControlPlane:
    """One cluster, in `directory`; what it runs ends with this process."""

    def __init__(self, tools: Tools, directory: Path) -> None:
        self._tools = tools
        self._directory = directory
        self.kubeconfig = directory / "kubeconfig"
        self._token = secrets.token_hex(16)
        self._etcd, self._peer, self._api, self._manager, self._scheduler = free_ports(5)
        self._daemons: list[Daemon] = []

    def start(self) -> None:
        """Returns when pods can be made. Raises StartFailed."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._write()
        etcd, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._peer}"
        certificates = str(self._directory / "certificates")
        self._run(
            *("etcd", "etcd", "--data-dir", str(self._directory / "etcd"), "--listen-client-urls", etcd, "--advertise-client-urls", etcd),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"),
            *("--unsafe-no-fsync", "--log-level", "error"),
        )
        key = str(self._directory / "accounts.key")
        api = self._run(
            *("apiserver", "apiserver", "--etcd-servers", etcd, "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1"),
            *("--secure-port", str(self._api), "--cert-dir", certificates, "--service-account-key-file", key),
            *("--service-account-signing-key-file", key, "--service-account-issuer", "https://kubernetes.default.svc"),
            *("--service-cluster-ip-range", "10.96.0.0/16", "--authorization-mode", "RBAC", "--allow-privileged"),
            *("--token-auth-file", str(self._directory / "tokens.csv")),
        )
        api.await_ready(lambda: self._says("get", "--raw", "/readyz"), START_SECONDS)
        config = str(self.kubeconfig)
        common: tuple[str, ...] = ("--kubeconfig", config, "--authentication-kubeconfig", config, "--authorization-kubeconfig", config)
        common = (*common, "--bind-address", "127.0.0.1", "--leader-elect=false", "--cert-dir", certificates)
        self._run("kcm", "kcm", *common, "--secure-port", str(self._manager), "--service-account-private-key-file", key)
        self._run("scheduler", "scheduler", *common, "--secure-port", str(self._scheduler))
        self._daemon(
            "kwok",
            *(str(self._tools.bin / "kwok"), "-c", str(self._tools.stages), "--manage-all-nodes", "--node-lease-duration-seconds", "40"),
            *("--node-ip", "127.0.0.1", "--server-address", f"127.0.0.1:{free_ports(1)[0]}"),
        )
        self.apply(_NODE)
        api.await_ready(lambda: self._says("get", "serviceaccount", "default"), START_SECONDS)  # without it the first pods are refused
        self.kubectl("wait", "--for=condition=Ready", "node/kwok-0", "--timeout=60s")
        for crd in sorted(self._tools.crds.glob("*.yaml")):
            self.kubectl("create", "-f", str(crd))
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")

    def stop(self) -> None:
        """The last one first."""
        for daemon in reversed(self._daemons):
            daemon.kill()

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """What it printed. Raises StartFailed."""
        return self._command([str(self._tools.bin / "kubebox"), "kubectl", *arguments], given)

    def helm(self, *arguments: str) -> str:
        """What it printed. Raises StartFailed."""
        return self._command([str(self._tools.bin / "helm"), *arguments], None)

    def get(self, *arguments: str) -> list[dict[str, Any]]:
        """Objects as the API server has them."""
        found = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found["items"] if found["kind"] == "List" else [found]

    def apply(self, what: Mapping[str, Any], *arguments: str) -> None:
        """One object or a List; a field that does not exist is refused."""
        self.kubectl("apply", "--validate=strict", *arguments, "-f", "-", given=json.dumps(what))

    def _command(self, command: list[str], given: str | None) -> str:
        environment = {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self._directory), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, env=environment, input=given, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS)
        if done.returncode != 0:
            raise StartFailed(f"`{' '.join([Path(command[0]).name, *command[1:4]])}` failed: {done.stderr.strip()[-4_000:]}")
        return done.stdout

    def _says(self, *arguments: str) -> bool:
        try:
            self.kubectl(*arguments)
        except StartFailed:
            return False
        return True

    def _run(self, name: str, *arguments: str) -> Daemon:
        return self._daemon(name, str(self._tools.bin / "kubebox"), *arguments)

    def _daemon(self, name: str, *command: str) -> Daemon:
        directory = self._directory
        environment = {"KUBECONFIG": str(self.kubeconfig), "HOME": str(directory)}
        daemon = Daemon(name, command, directory / f"{name}.json", directory / f"{name}.log", environment, dies_with_parent=True)
        daemon.start()
        self._daemons.append(daemon)
        return daemon

    def _write(self) -> None:
        key = self._directory / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        tokens = self._directory / "tokens.csv"
        tokens.touch(mode=0o600)
        tokens.write_text(f'{self._token},admin,admin,"system:masters"\n')
        server = f"https://127.0.0.1:{self._api}"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server, "insecure-skip-tls-verify": True}}],
            "users": [{"name": "u", "user": {"token": self._token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(json.dumps(config))
