"""What the simulated model says: derived from prompt and seed, scripted, JSON, tool calls, failures."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from infra.lab.simulators.ollama.core import SimulatedOllama
from infra.lab.simulators.ollama.embeddings import embed
from infra.lab.simulators.ollama.errors import ConnectionDropped, OllamaError
from infra.lab.simulators.ollama.parameters import FailureMode, Failures, Parameters
from tests.support.simulated_node import STEADY, chat, collect, pass_time, simulate

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
            "required": ["city", "days"],
        },
    },
}


def ask(request: dict[str, Any], parameters: Parameters = STEADY, seed: int = 1) -> dict[str, Any]:
    """The one chunk of an answer that is not streamed."""

    async def scenario(node: SimulatedOllama) -> list[dict[str, Any]]:
        return await collect(node.chat(request | {"stream": False}))

    (only,) = simulate(parameters, scenario, seed)
    return dict(only)


def text(request: dict[str, Any], parameters: Parameters = STEADY, seed: int = 1) -> str:
    return str(ask(request, parameters, seed)["message"]["content"])


async def count_chunks(node: SimulatedOllama, error: type[Exception]) -> tuple[int, Exception]:
    """How many chunks come before `error`, and the error."""
    seen = 0
    try:
        async for _ in node.chat(chat()):
            seen += 1
    except error as raised:
        return seen, raised
    raise AssertionError("the stream ended in order")


def failing(mode: FailureMode, **more: Any) -> Parameters:
    return STEADY.with_(failures={"triggers": [{"mode": mode}], "fail_after_tokens": 3, **more})


def test_an_answer_that_is_begun_is_continued() -> None:
    """As Ollama does: what follows the assistant's last message joins to the answer that it is the beginning of, wherever it was cut."""
    whole = text(chat())
    for cut in (1, 7, len(whole) // 2, len(whole) - 1, len(whole)):
        begun = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": whole[:cut]}]
        assert whole[:cut] + text(chat() | {"messages": begun}) == whole
    other = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Quite otherwise"}]
    assert text(chat() | {"messages": other}).startswith(" ")


def test_equal_prompt_and_seed_give_an_equal_answer_on_every_node() -> None:
    """The text depends on model, prompt, the option `seed` and the node's seed; not on speed, load or the node's randomness."""
    base = text(chat())
    assert base == text(chat(), STEADY.with_(decode_gb_per_second=99), seed=2)
    others = {text(chat(text="ho")), text(chat("other")), text(chat(options={"seed": 5})), text(chat(), STEADY.with_(seed=9))}
    assert len(others | {base}) == 5


def test_the_stream_joins_to_the_whole_answer() -> None:
    """Streamed and not streamed say the same; an answer of ten words is ten chunks and the final."""

    async def scenario(node: SimulatedOllama) -> list[dict[str, Any]]:
        return await collect(node.chat(chat()))

    chunks = simulate(STEADY, scenario)
    assert "".join(chunk["message"]["content"] for chunk in chunks) == text(chat())
    assert [chunk["done"] for chunk in chunks] == [False] * 10 + [True]


def test_num_predict_cuts_with_reason_length_and_stop_marks_with_reason_stop() -> None:
    """`num_predict` counts tokens; a stop mark does not appear in the answer."""
    cut = ask(chat(options={"num_predict": 4}))
    whole = text(chat()).split()
    stopped = ask(chat(options={"stop": [whole[5]]}))
    assert (cut["message"]["content"].split(), cut["done_reason"]) == (whole[:4], "length")
    assert (stopped["message"]["content"].split(), stopped["done_reason"]) == (whole[:5], "stop")


def test_scripts_answer_by_content_first_match_wins() -> None:
    """By text, by pattern, by model; what no script matches is answered in sentences."""
    scripted = STEADY.with_(
        scripts=[
            {"contains": "capital of France", "answer": "Paris.\nThat is all."},
            {"pattern": r"\d+ \+ \d+", "model": "other", "answer": "four"},
            {"pattern": r"\d+ \+ \d+", "answer": "five"},
        ]
    )
    assert text(chat(text="What is the capital of France?"), scripted) == "Paris.\nThat is all."
    assert text(chat("other", "2 + 2"), scripted) == "four"
    assert text(chat("small", "2 + 2"), scripted) == "five"
    assert text(chat(text="hi"), scripted) == text(chat(text="hi"))


def test_format_json_and_schema_give_valid_json() -> None:
    """ "json" gives an object, a schema gives what obeys it."""
    schema = WEATHER["function"]["parameters"]  # type: ignore[index]
    assert isinstance(json.loads(text(chat(format="json"))), dict)
    Draft202012Validator(schema).validate(json.loads(text(chat(format=schema))))


def test_a_tool_is_called_when_the_user_names_it() -> None:
    """By its name, or the first one by the word tool; the arguments obey its schema; other texts and tool answers get words."""
    parameters = WEATHER["function"]["parameters"]  # type: ignore[index]
    for question in ("Use get_weather for Oslo", "Which tool helps?"):
        (call,) = ask(chat(text=question, tools=[WEATHER]))["message"]["tool_calls"]
        assert call["function"]["name"] == "get_weather"
        Draft202012Validator(parameters).validate(call["function"]["arguments"])
    assert "tool_calls" not in ask(chat(text="Hello", tools=[WEATHER]))["message"]
    after = chat(tools=[WEATHER])
    after["messages"] += [{"role": "assistant", "content": ""}, {"role": "tool", "content": "12 degrees", "tool_name": "get_weather"}]
    assert text(after) == "The tool answered: 12 degrees"


def test_thinking_comes_before_the_answer_and_apart_from_it() -> None:
    """Only when asked for, only from a model that can."""
    message = ask(chat("thinker", think=True))["message"]
    assert message["thinking"]
    assert message["content"] == text(chat("thinker", think=True))
    assert "thinking" not in ask(chat("thinker"))["message"]


def test_embeddings_have_length_one_and_know_likeness() -> None:
    """Deterministic, normalised, of the model's dimension; texts that share words are nearer than others."""

    def product(one: list[float], other: list[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    cat, same, dog = (embed(words, model="m", dimensions=384) for words in ("the cat sat", "The cat sat!", "quantum field theory"))
    assert cat == same
    assert product(cat, cat) == pytest.approx(1)
    assert product(cat, embed("the cat slept", model="m", dimensions=384)) > product(cat, dog)

    async def scenario(node: SimulatedOllama) -> list[dict[str, Any]]:
        request = {"model": "embedder", "input": ["a", "b"]}
        return [await node.embed(request), await node.embed(request | {"dimensions": 8})]

    whole, short = simulate(STEADY, scenario)
    assert [len(vector) for vector in whole["embeddings"] + short["embeddings"]] == [64, 64, 8, 8]
    assert product(short["embeddings"][0], short["embeddings"][0]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("mode", "status", "tokens"),
    [("error_500", 500, 0), ("busy_503", 503, 0), ("load_failed", 500, 0), ("mid_stream_error", 500, 3), ("crash", 500, 3)],
)
def test_failures_with_an_error(mode: str, status: int, tokens: int) -> None:
    """Each comes at its place with its status, is counted, and leaves the node usable."""

    async def scenario(node: SimulatedOllama) -> tuple[int, int, dict[str, int], bool]:
        seen, failed = await count_chunks(node, OllamaError)
        assert isinstance(failed, OllamaError)
        node.change(Failures())
        (*_, last) = await collect(node.chat(chat()))
        return failed.status, seen, dict(node.truth.failures), last["done"]

    assert simulate(failing(FailureMode(mode)), scenario) == (status, tokens, {mode: 1}, True)


@pytest.mark.parametrize(("mode", "tokens", "at"), [("disconnect", 3, 1.3), ("hang", 0, 31.0)])
def test_failures_that_cut_the_connection(mode: str, tokens: int, at: float) -> None:
    """A disconnect after some tokens, a hang after its time with none."""

    async def scenario(node: SimulatedOllama) -> tuple[int, bool, float]:
        seen, _ = await count_chunks(node, ConnectionDropped)
        return seen, node.ps()["models"] != [], asyncio.get_running_loop().time()

    assert simulate(failing(FailureMode(mode), hang_seconds=30), scenario) == (tokens, True, pytest.approx(at, abs=0.01))


def test_failures_of_the_answer_itself() -> None:
    """Invalid JSON is not JSON; a truncated stream has no `done: true`; a repetition runs to the limit; slow is slow."""
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(text(chat(format="json"), failing(FailureMode.INVALID_JSON)))
    repeated = ask(chat(options={"num_predict": 40}), failing(FailureMode.REPETITION))
    words = repeated["message"]["content"].split()
    assert (len(words), words[:4], repeated["done_reason"]) == (40, words[4:8], "length")
    slow = ask(chat(), failing(FailureMode.SLOW, slow_token_seconds=2))
    assert slow["eval_duration"] == pytest.approx(20e9)

    async def scenario(node: SimulatedOllama) -> list[dict[str, Any]]:
        return await collect(node.chat(chat()))

    assert not any(chunk["done"] for chunk in simulate(failing(FailureMode.TRUNCATED), scenario))


def test_a_crash_takes_all_requests_of_the_runner_with_it() -> None:
    """The running and the waiting ones fail with 500; the next request loads the model again."""

    async def scenario(node: SimulatedOllama) -> tuple[list[int], int]:
        ends = await asyncio.gather(*(collect(node.chat(chat(text=name))) for name in ("crash", "b", "c")), return_exceptions=True)
        await collect(node.chat(chat()))
        return [end.status for end in ends if isinstance(end, OllamaError)], node.truth.loads

    crashing = STEADY.with_(num_parallel=2, failures={"triggers": [{"mode": "crash", "contains": "crash"}]})
    assert simulate(crashing, scenario) == ([500, 500, 500], 2)


def test_triggers_strike_by_count_and_chances_repeat_by_seed() -> None:
    """`every` and `times` count matching requests; chance is drawn from the injected random."""

    async def scenario(node: SimulatedOllama) -> str:
        outcome = ""
        for _ in range(12):
            try:
                await collect(node.chat(chat()))
            except OllamaError:
                outcome += "x"
            else:
                outcome += "."
        return outcome

    triggered = STEADY.with_(failures={"triggers": [{"mode": "error_500", "every": 3, "times": 2}]})
    assert simulate(triggered, scenario) == "..x..x......"
    chancy = STEADY.with_(failures={"chances": {"error_500": 0.5}})
    assert simulate(chancy, scenario, 1) == simulate(chancy, scenario, 1) != simulate(chancy, scenario, 3)


def test_a_restart_drops_every_connection_and_unloads_everything() -> None:
    """As when the server process dies and is started again."""

    async def scenario(node: SimulatedOllama) -> tuple[bool, list[Any], bool]:
        running = asyncio.create_task(collect(node.chat(chat())))
        await pass_time(1.5)
        await node.restart()
        (end,) = await asyncio.gather(running, return_exceptions=True)
        empty = node.ps()["models"]
        return isinstance(end, ConnectionDropped), empty, (await collect(node.chat(chat())))[-1]["done"]  # type: ignore[has-type]

    assert simulate(STEADY, scenario) == (True, [], True)
