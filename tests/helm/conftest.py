"""Fixtures of `make helm-check`: Helm, the chart rendered, and a Kubernetes control plane to install it in.

| fixture | gives | scope |
|---|---|---|
| `tools` | where `python -m infra.lab.make kubernetes` put Helm and Kubernetes | session |
| `render` | `render(variant or file, *arguments)`: the objects of the chart | session |
| `plane` | a running control plane | session |
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

from infra.lab.kubernetes.plane import ControlPlane
from infra.lab.kubernetes.tools import Tools
from infra.native.settings import NativeSettings
from tests.support.chart import CHART, VARIANTS
from tests.support.native import missing


class Render(Protocol):
    """What the `render` fixture is."""

    def __call__(self, variant: str, *arguments: str) -> list[dict[str, Any]]:
        """Every object, hooks too. Raises AssertionError with what Helm said."""
        ...


@pytest.fixture(scope="session")
def tools() -> Tools:
    """Helm and Kubernetes, built before."""
    found = Tools(NativeSettings().cache_directory)
    if not found.present():
        missing("kubernetes", "`make helm-check` builds Helm and a control plane (needs Go)")
    return found


@pytest.fixture(scope="session")
def render(tools: Tools) -> Render:
    """`helm template`, by variant."""

    def rendered(variant: str, *arguments: str) -> list[dict[str, Any]]:
        command = [str(tools.bin / "helm"), "template", "release", str(CHART), "--namespace", "models", *arguments]
        if variant:
            command += ["-f", str(VARIANTS[variant])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [one for one in yaml.safe_load_all(done.stdout) if one]

    return rendered


@pytest.fixture(scope="session")
def plane(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Real but for its kubelet."""
    one = ControlPlane(tools, Path(tmp_path_factory.mktemp("plane")))
    try:
        one.start()
        yield one
    finally:
        one.stop()
