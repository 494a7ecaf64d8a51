"""The promise of `make ollama`: a real Ollama whose small models answer, obey schemas and embed.

What: gemma3:270m names Paris; both tiny models stream text and give schema-valid JSON; all-minilm tells near texts from far ones.
How: the installed program as a server of its own, asked through the official client.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence

import httpx
import ollama
import pytest

pytestmark = [pytest.mark.ollama, pytest.mark.alone]


@pytest.fixture
def client(ollama_url: str) -> Iterator[ollama.Client]:
    with ollama.Client(ollama_url) as one:
        yield one


def test_it_is_a_real_ollama_with_the_promised_models(ollama_url: str, client: ollama.Client) -> None:
    """The pinned version, not a simulation."""
    assert httpx.get(f"{ollama_url}/api/version").json() == {"version": "0.34.0"}
    assert {model.model for model in client.list().models} >= {"gemma3:270m", "tiny:latest", "tiny2:latest", "all-minilm:latest"}


def test_the_small_model_answers_sensibly(client: ollama.Client) -> None:
    """The template makes a base model answer and stop."""
    question = [{"role": "user", "content": "What is the capital of France?"}]
    answer = client.chat("gemma3:270m", question, options={"temperature": 0})
    assert answer.message.content is not None
    assert "Paris" in answer.message.content
    assert answer.done_reason == "stop"


@pytest.mark.parametrize("model", ["tiny", "tiny2"])
def test_the_tiny_models_stream_and_obey_schemas(client: ollama.Client, model: str) -> None:
    """Text comes in pieces, of a length that chance decides; a schema gives valid JSON from random weights."""
    streams = [list(client.generate(model, "data job", stream=True, options={"num_predict": 40, "seed": seed})) for seed in range(5)]
    assert max(len(stream) for stream in streams) > 5
    assert all(stream[-1].done for stream in streams)
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}, "n": {"enum": [1, 2, 3]}}, "required": ["ok", "n"]}
    answer = client.generate(model, "data job", format=schema, options={"num_predict": 200})
    assert set(json.loads(answer.response or "")) == {"ok", "n"}


def test_embeddings_tell_near_from_far(client: ollama.Client) -> None:
    """384 dimensions; a paraphrase lies nearer than another subject."""
    texts = ["The cat sits on the mat.", "A cat is sitting on a mat.", "Interest rates rose by half a percent."]
    near, paraphrase, far = client.embed("all-minilm", texts).embeddings
    assert len(near) == 384
    assert cosine(near, paraphrase) > cosine(near, far) + 0.3


def cosine(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(left, right, strict=True)) / (math.hypot(*left) * math.hypot(*right))
