"""The model node: where an Ollama is looked for, what is remembered, what the worker is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.native import node, ollama_server, ports
from infra.native.embedded import packages
from infra.native.install import Need
from infra.native.node import ModelNode
from infra.native.settings import NativeSettings
from infra.native.stack import Stack


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("gpu.lan", "http://gpu.lan:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("127.0.0.1:9000/", "http://127.0.0.1:9000"),
        ("https://gpu.lan", "https://gpu.lan:443"),
        ("http://gpu.lan:8080", "http://gpu.lan:8080"),
    ],
)
def test_ollama_host_means_what_it_means_to_ollama(value: str, url: str) -> None:
    """Scheme and port are optional; an any-address is this machine."""
    assert ollama_server.address({"OLLAMA_HOST": value}) == url


def test_a_node_that_no_longer_answers_is_not_current(tmp_path: Path) -> None:
    """A remembered choice counts only while it serves: after a reboot the search starts again."""
    settings = NativeSettings(home=tmp_path)
    node.remember(settings.stack_home, ModelNode("running", "http://127.0.0.1:9", "gone", ("m",)))
    assert node.current(settings) is None


def test_a_simulated_node_tells_what_a_real_one_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the command, and in every status: it was chosen long before somebody looks."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    monkeypatch.setattr(packages, "NEEDS", (Need("libnone.so.0", ("libnone0",), "llama.cpp runs on it", library=True),))
    settings = NativeSettings(home=tmp_path, cache=tmp_path / "cache", node_port=ports.free_ports(1)[0])
    simulated = node.start(settings.model_copy(update={"node": "simulator"}), print)
    try:
        node.remember(settings.stack_home, simulated)
        row = next(row for row in Stack(settings, print).status() if row.simulated)
        assert "`libnone.so.0` (llama.cpp runs on it) is missing; install with: " in row.remedy
        assert "libnone0" in row.remedy
    finally:
        assert simulated.daemon is not None
        simulated.daemon.stop(node.STOP_SECONDS)


def test_no_choice_and_a_broken_note_are_no_node(tmp_path: Path) -> None:
    """Neither a first start nor a half-written note is an error."""
    settings = NativeSettings(home=tmp_path)
    assert node.current(settings) is None
    (settings.stack_home.directory("run") / "node.chosen").write_text("{")
    assert node.current(settings) is None


@pytest.mark.parametrize(
    ("kind", "backend"), [("running", "ollama"), ("ollama", "ollama"), ("embedded", "embedded"), ("simulator", "ollama")]
)
def test_the_worker_is_told_which_protocol_the_node_speaks(kind: node.Kind, backend: str) -> None:
    """Only the embedded node is OpenAI-compatible; the simulator speaks Ollama's protocol."""
    one = ModelNode(kind, "http://127.0.0.1:1", "", ())
    assert one.worker_environment()["TUTTI_WORKER__BACKEND"] == backend
    assert one.simulated is (kind == "simulator")


def test_random_models_are_not_offered_beside_real_ones() -> None:
    """Who asks for any model gets words that mean something; alone, the random ones are served, for they are all there is."""
    mixed = node.ModelNode("ollama", "http://x", "about", ("tiny:latest", "gemma3:270m", "tiny2:latest", "all-minilm:latest"))
    assert mixed.worker_environment()["TUTTI_WORKER__MODELS"] == "gemma3:270m,all-minilm:latest"
    assert "TUTTI_WORKER__MODELS" not in node.ModelNode("ollama", "http://x", "about", ("tiny:latest",)).worker_environment()
    assert "TUTTI_WORKER__MODELS" not in node.ModelNode("ollama", "http://x", "about", ("llama3.1:8b",)).worker_environment()
