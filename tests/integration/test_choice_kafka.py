"""Promise: what is asked decides which model answers: of three cards of two tiers a program goes to one, a picture to another, a long text
to a third; the answer says which model that was, and `tutti jobs get --why` says how.

How: real processes on a real Kafka, one simulated node that has the three models (simulated: no model writes), cards declared by the CLI.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from infra.cli.main import main
from infra.native.cluster import LocalCluster
from infra.native.waiting import wait_until
from tests.support.native import StartCluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

CARDS: dict[str, dict[str, Any]] = {
    "eyes": {"model": "eyes:7b", "tier": "medium", "quality": {"chat": 0.4}, "window": 4096, "abilities": ["vision"]},
    "big": {"model": "big:70b", "tier": "large", "quality": {"chat": 0.8}, "price": {"completion_per_million": 5.0}},
    "coder": {"model": "coder:7b", "tier": "medium", "quality": {"chat": 0.5, "code": 0.9}, "window": 4096, "abilities": ["tools"]},
}
CODE = "Write a Python function that merges two sorted lists."
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


def tutti(at: LocalCluster, *arguments: str) -> str:
    environment = {"TUTTI_KAFKA_SERVERS": at.servers, "TUTTI_TOPICS__PREFIX": at.prefix, "TUTTI_URL": at.url}
    result = CliRunner().invoke(main, arguments, env=environment, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def ask(at: LocalCluster, content: Any, **more: Any) -> tuple[str, str]:
    """(model, id of the job) of a chat completion."""
    body = {"model": "auto", "messages": [{"role": "user", "content": content}], "max_tokens": 8, **more}
    response = httpx.post(f"{at.url}/v1/chat/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()["model"], response.json()["id"].removeprefix("chatcmpl-")


def test_what_is_asked_decides_which_model_answers(cluster: StartCluster, tmp_path: Path) -> None:
    models = json.dumps([{"name": card["model"], "capabilities": ["completion", *card.get("abilities", ())]} for card in CARDS.values()])
    at = cluster("choice", workers=1, simulator=("--profile", "instant", "--set", f"models={models}", "--set", "default_context=32768"))
    for name, card in CARDS.items():
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(card))
        tutti(at, "models", "set", name, "--file", str(file))
    kind = "a query of kind code"

    def all_cards_read() -> bool:
        model, job = ask(at, CODE)
        return model == "coder:7b" and kind in tutti(at, "jobs", "get", job, "--why")  # its card came last

    assert wait_until(all_cards_read, 30.0), "the planners have read the cards"
    model, job = ask(at, CODE)
    why = tutti(at, "jobs", "get", job, "--why")
    assert model == "coder:7b"
    assert kind in why
    assert why.index("coder:7b: 0.") < why.index("big:70b: 0.")
    assert "answer predicted in" in why
    model, job = ask(at, [{"type": "text", "text": "What is this?"}, PICTURE])
    assert (model, "vision" in tutti(at, "jobs", "get", job, "--why")) == ("eyes:7b", True)
    model, job = ask(at, "What is this about? " + "word " * 6_000)
    assert (model, "not coder:7b: window" in tutti(at, "jobs", "get", job, "--why")) == ("big:70b", True)
    assert ask(at, CODE, model="tier:large")[0] == ask(at, CODE, model="big")[0] == "big:70b"
