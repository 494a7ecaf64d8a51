"""Promise: the simulated Ollama is a node like another: it answers over HTTP, ends on SIGTERM, and refuses wrong settings.

How: a real process on a free port of this machine, spoken to by plain HTTP.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

COMMAND = [sys.executable, "-m", "infra.lab.simulators.ollama"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def simulator(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    port = free_port()
    process = subprocess.Popen([*COMMAND, "--port", str(port), *options], stdout=subprocess.PIPE, text=True)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def answering(http: httpx.AsyncClient) -> None:
    """Poll until the node is up; TimeoutError after 20 seconds."""
    async with asyncio.timeout(20):
        while True:
            try:
                await http.get("/")
            except httpx.TransportError:
                await asyncio.sleep(0.05)  # noqa: TID251 - real time: another process starts
            else:
                return


async def test_a_process_answers_by_its_options_and_ends_in_order() -> None:
    """Models, seed and any parameter come from the command line; SIGTERM ends the process with 0 although a stream is open."""
    options = ("--profile", "instant", "--models", "mine:2.5,my-embed:0.1", "--set", "decode_gb_per_second=5", "--seed", "3")
    with simulator(*options) as (process, url):
        async with httpx.AsyncClient(base_url=url, timeout=20) as http:
            await answering(http)
            models = (await http.get("/api/tags")).json()["models"]
            assert [(model["name"], model["size"]) for model in models] == [
                ("mine:latest", 2_500_000_000),
                ("my-embed:latest", 100_000_000),
            ]
            async with http.stream("POST", "/api/generate", json={"model": "mine", "prompt": "hi"}) as stream:
                assert stream.status_code == 200
                process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(process.wait, 20) == 0


@pytest.mark.parametrize("options", [("--set", "num_paralel=2"), ("--set", "num_parallel=0"), ("--profile", "none"), ("--models", ":")])
def test_wrong_settings_are_refused_with_a_message(options: tuple[str, ...]) -> None:
    """Exit code 2 and a line that names the setting; nothing is started."""
    ended = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert "Error" in ended.stderr
