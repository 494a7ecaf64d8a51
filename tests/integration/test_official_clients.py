"""Promise: the official clients of OpenAI, Ollama and Anthropic work unchanged: plain, streamed, tools, structured output, embeddings,
responses, errors, and whoever stops reading stops the generation at its node.

How: a real Kafka, real services and the clients as they are, over HTTP; a simulated node with models that chat, embed, and take their time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest
from pydantic import BaseModel

from infra.native.cluster import LocalCluster
from infra.native.waiting import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

CHAT, EMBED, SLOW = "llama3.2:1b", "all-minilm", "slow:1"
MODELS = [
    {"name": CHAT, "size_gb": 1.0},
    {"name": EMBED, "size_gb": 0.1, "capabilities": ["embedding"]},
    {"name": SLOW, "size_gb": 1.0, "decode_tokens_per_second": 10},
]
ASK: list[Any] = [{"role": "user", "content": "Name three colours."}]
TOOL_ASK: list[Any] = [{"role": "user", "content": "How is the weather in Rome?"}]
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string", "enum": ["Rome"]}}, "required": ["city"]}
FUNCTION: Any = {"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": SCHEMA}}
FORCED: Any = {"type": "function", "function": {"name": "weather"}}


class Place(BaseModel):
    city: str


class Clients:
    """One of each, as anybody makes it."""

    def __init__(self, at: LocalCluster) -> None:
        self.at = at
        self.openai = openai.OpenAI(base_url=f"{at.url}/v1", api_key="none", max_retries=0, timeout=60)
        self.ollama = ollama.Client(host=at.url, timeout=60)
        self.anthropic = anthropic.Anthropic(base_url=at.url, api_key="none", max_retries=0, timeout=60)

    def close(self) -> None:
        for client in (self.openai, self.ollama, self.anthropic):
            client.close()

    def idle(self) -> bool:
        """The node works on nothing."""
        return bool(httpx.get(f"{self.at.services['worker-1'].environment['TUTTI_WORKER__URL']}/control").json()["truth"]["in_flight"] == 0)


@pytest.fixture(scope="module")
def at(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    directory: Path = tmp_path_factory.mktemp("clients")
    simulator = ("--profile", "instant", "--set", f"models={json.dumps(MODELS)}")
    with LocalCluster(kafka, "official", directory, simulator=simulator) as cluster, closing(Clients(cluster)) as clients:
        yield clients


def openai_plain(at: Clients) -> None:
    found = at.openai.chat.completions.create(model=CHAT, messages=ASK)
    assert found.choices[0].message.content
    assert found.choices[0].finish_reason == "stop"
    assert CHAT in {model.id for model in at.openai.models.list()}


def openai_streamed(at: Clients) -> None:
    chunks = list(at.openai.chat.completions.create(model=CHAT, messages=ASK, seed=1, stream=True, stream_options={"include_usage": True}))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == at.openai.chat.completions.create(model=CHAT, messages=ASK, seed=1).choices[0].message.content
    assert chunks[-1].usage


def openai_tools(at: Clients) -> None:
    said = at.openai.chat.completions.create(model=CHAT, messages=ASK, tools=[FUNCTION], tool_choice=FORCED).choices[0].message
    [call] = said.tool_calls or []
    assert (call.type, json.loads(call.function.arguments)) == ("function", {"city": "Rome"})
    turns = [*ASK, said.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    assert "rain" in (at.openai.chat.completions.create(model=CHAT, messages=turns, tools=[FUNCTION]).choices[0].message.content or "")


def openai_structured(at: Clients) -> None:
    assert at.openai.chat.completions.parse(model=CHAT, messages=ASK, response_format=Place).choices[0].message.parsed


def openai_embeddings(at: Clients) -> None:
    found = at.openai.embeddings.create(model=EMBED, input=["a", "b"])
    assert [(one.index, len(one.embedding)) for one in found.data] == [(0, 384), (1, 384)]


def openai_completions(at: Clients) -> None:
    assert at.openai.completions.create(model=CHAT, prompt="Colours:").choices[0].text
    assert list(at.openai.completions.create(model=CHAT, prompt="Colours:", stream=True))


def openai_responses(at: Clients) -> None:
    assert at.openai.responses.create(model=CHAT, input="Name three colours.").output_text
    assert at.openai.responses.parse(model=CHAT, input="Where?", text_format=Place).output_parsed
    made = at.openai.responses.create(model=CHAT, input="Name three colours.", background=True)
    events = list(at.openai.responses.retrieve(made.id, stream=True))
    assert events[-1].type == "response.completed"
    rest = list(at.openai.responses.retrieve(made.id, stream=True, starting_after=events[2].sequence_number))
    assert rest[-1].sequence_number == events[-1].sequence_number
    again = at.openai.responses.create(model=CHAT, input="And?", store=True)
    assert at.openai.responses.create(model=CHAT, input="And then?", previous_response_id=again.id).output_text


def openai_errors(at: Clients) -> None:
    with pytest.raises(openai.NotFoundError, match="none:1"):
        at.openai.chat.completions.create(model="none:1", messages=ASK)
    with pytest.raises(openai.BadRequestError, match="messages"):
        at.openai.chat.completions.create(model=CHAT, messages=[])
    with pytest.raises(openai.NotFoundError):
        at.openai.responses.retrieve("resp_none")


def openai_cancel(at: Clients) -> None:
    made = at.openai.responses.create(model=SLOW, input="Name three colours.", background=True)
    at.openai.responses.cancel(made.id)
    assert wait_until(lambda: at.openai.responses.retrieve(made.id).status == "cancelled", 30.0)
    left(at, lambda: at.openai.chat.completions.create(model=SLOW, messages=ASK, stream=True))


def ollama_plain(at: Clients) -> None:
    assert at.ollama.chat(CHAT, ASK).message.content
    assert at.ollama.generate(CHAT, "Colours:").response
    assert {CHAT, f"{EMBED}:latest"} <= {model.model for model in at.ollama.list().models}
    assert at.ollama.show(CHAT).capabilities
    at.ollama.ps()


def ollama_streamed(at: Clients) -> None:
    parts = list(at.ollama.chat(CHAT, ASK, stream=True, options={"seed": 1}))
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert "".join(part.message.content or "" for part in parts) == at.ollama.chat(CHAT, ASK, options={"seed": 1}).message.content
    assert "".join(part.response or "" for part in at.ollama.generate(CHAT, "Colours:", stream=True))


def ollama_tools(at: Clients) -> None:
    said = at.ollama.chat(CHAT, TOOL_ASK, tools=[FUNCTION]).message
    [call] = said.tool_calls or []
    assert (call.function.name, dict(call.function.arguments)) == ("weather", {"city": "Rome"})
    turns = [*TOOL_ASK, said, {"role": "tool", "tool_name": "weather", "content": "rain"}]
    assert "rain" in (at.ollama.chat(CHAT, turns, tools=[FUNCTION]).message.content or "")


def ollama_structured(at: Clients) -> None:
    assert Place.model_validate_json(at.ollama.chat(CHAT, ASK, format=Place.model_json_schema()).message.content or "")


def ollama_embeddings(at: Clients) -> None:
    assert [len(vector) for vector in at.ollama.embed(EMBED, ["a", "b"]).embeddings] == [384, 384]
    assert len(at.ollama.embeddings(EMBED, "a").embedding) == 384


def ollama_errors(at: Clients) -> None:
    with pytest.raises(ollama.ResponseError, match="none:1") as caught:
        at.ollama.chat("none:1", ASK)
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="nodes"):
        at.ollama.pull("none:1")


def ollama_cancel(at: Clients) -> None:
    left(at, lambda: at.ollama.chat(SLOW, ASK, stream=True))
    left(at, lambda: at.ollama.generate(SLOW, "Colours:", stream=True))


def anthropic_plain(at: Clients) -> None:
    found = at.anthropic.messages.create(model=CHAT, max_tokens=99, messages=ASK)
    assert (found.content[0].type, found.stop_reason) == ("text", "end_turn")
    assert at.anthropic.messages.count_tokens(model=CHAT, messages=ASK).input_tokens > 0


def anthropic_streamed(at: Clients) -> None:
    with at.anthropic.messages.stream(model=CHAT, max_tokens=99, messages=ASK) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text


def anthropic_tools(at: Clients) -> None:
    tool: Any = {"name": "weather", "description": "Of a city.", "input_schema": SCHEMA}
    ask: dict[str, Any] = {"model": CHAT, "max_tokens": 99, "tools": [tool]}
    said = at.anthropic.messages.create(**ask, messages=ASK, tool_choice={"type": "tool", "name": "weather"})
    [call] = [block for block in said.content if block.type == "tool_use"]
    assert (call.name, call.input, said.stop_reason) == ("weather", {"city": "Rome"}, "tool_use")
    result: Any = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"}]}
    turns: Any = [*ASK, {"role": "assistant", "content": said.content}, result]
    assert "rain" in at.anthropic.messages.create(**ask, messages=turns).content[0].text


def anthropic_structured(at: Clients) -> None:
    found = at.anthropic.messages.parse(model=CHAT, max_tokens=99, messages=ASK, output_format=Place)
    assert found.parsed_output


def anthropic_errors(at: Clients) -> None:
    with pytest.raises(anthropic.NotFoundError, match="none:1"):
        at.anthropic.messages.create(model="none:1", max_tokens=9, messages=ASK)
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        at.anthropic.messages.create(model=CHAT, max_tokens=9, messages=[])


def anthropic_cancel(at: Clients) -> None:
    left(at, lambda: at.anthropic.messages.create(model=SLOW, max_tokens=999, messages=ASK, stream=True))


def left(at: Clients, ask: Callable[[], Any]) -> None:
    """A client that has read a piece of a long answer reads no more: its node is free at once."""
    assert wait_until(at.idle, 30.0)
    stream = ask()
    next(iter(stream))
    assert not at.idle()
    stream.close()
    assert wait_until(at.idle, 5.0)


KINDS = [
    *(openai_plain, openai_streamed, openai_tools, openai_structured, openai_embeddings, openai_completions, openai_responses),
    *(openai_errors, openai_cancel),
    *(ollama_plain, ollama_streamed, ollama_tools, ollama_structured, ollama_embeddings, ollama_errors, ollama_cancel),
    *(anthropic_plain, anthropic_streamed, anthropic_tools, anthropic_structured, anthropic_errors, anthropic_cancel),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_official_clients_work_unchanged(kind: Callable[[Clients], None], at: Clients) -> None:
    kind(at)
