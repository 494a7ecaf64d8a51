"""The OpenAI dialect inwards: what becomes of a request; everything that cannot be done is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from services.ingress.dialects.openai.requests import ChatRequest, to_job
from services.ingress.dialects.port import Terms, UnsupportedParameter
from services.ingress.problems import of_error
from shared.contracts.job import Job

HELLO = [{"role": "user", "content": "hello"}]


def job_of(**fields: Any) -> Job:
    request = ChatRequest.model_validate({"messages": HELLO, **fields})
    return to_job(request, Terms("j_1", None, "m", None, 10.0))


def test_a_minimal_request() -> None:
    """Messages alone are enough; the rest is default."""
    job = job_of()
    assert job.messages is not None
    assert [(m.role, m.content) for m in job.messages] == [("user", "hello")]
    assert (job.id, job.tenant, job.model, job.pattern, job.stream, job.deadline_seconds) == ("j_1", "default", "m", "single", False, 10.0)


def test_options_are_translated() -> None:
    """Each sampling parameter has its counterpart."""
    job = job_of(temperature=0.5, top_p=0.9, seed=7, stop="END", max_tokens=9, presence_penalty=1, frequency_penalty=-1)
    options = job.options
    assert (options.temperature, options.top_p, options.seed, options.max_tokens) == (0.5, 0.9, 7, 9)
    assert (options.stop, options.presence_penalty, options.frequency_penalty) == (("END",), 1, -1)


def test_the_newer_token_limit_wins() -> None:
    """`max_completion_tokens` replaces `max_tokens`."""
    assert job_of(max_tokens=9, max_completion_tokens=5).options.max_tokens == 5


def test_large_seeds_are_folded_deterministically() -> None:
    """OpenAI's seeds have 64 bits: equal seeds stay equal and fit."""
    first, second = job_of(seed=2**40 + 3).options.seed, job_of(seed=2**40 + 3).options.seed
    assert first == second
    assert first is not None
    assert 0 <= first < 2**31


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, "json"),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}, {"type": "object"}),
    ],
)
def test_response_formats(given: dict[str, Any], expected: Any) -> None:
    """text, JSON, or a schema."""
    assert job_of(response_format=given).format == expected


def test_roles_parts_and_tools() -> None:
    """Developer is system; text parts are joined; a data URL is an image; a tool's answer carries its call's name."""
    parts = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        {"type": "text", "text": "here"},
    ]
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    job = job_of(messages=messages, tools=[tool])
    assert job.messages is not None
    system, user, assistant, answer = job.messages
    assert system.role == "system"
    assert (user.content, user.images) == ("look\nhere", ("QUJD",))
    assert assistant.tool_calls == (call,)
    assert (answer.tool_call_id, answer.tool_name) == ("c1", "weather")
    assert job.tools == (tool,)


F, G = ({"type": "function", "function": {"name": name, "parameters": {}}} for name in "fg")


@pytest.mark.parametrize(
    ("choice", "tools", "expected"),
    [
        (None, (F, G), "auto"),
        ("auto", (F, G), "auto"),
        ("none", (), "auto"),
        ("required", (F, G), "required"),
        ({"type": "function", "function": {"name": "g"}}, (G,), "required"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [G]}}, (G,), "auto"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [G, F]}}, (F, G), "required"),
    ],
)
def test_a_choice_is_which_tools_may_be_called_and_whether_one_must(choice: Any, tools: Any, expected: str) -> None:
    """A model that knows no tools calls none; one that knows a single tool calls no other."""
    job = job_of(tools=[F, G], tool_choice=choice, parallel_tool_calls=False)
    assert (job.tools, job.tool_choice, job.parallel_tool_calls) == (tools, expected, not tools)


@pytest.mark.parametrize(
    ("choice", "tools"),
    [
        ("required", None),
        ("sometimes", [F]),
        ({"type": "function", "function": {"name": "h"}}, [F]),
        ({"type": "function"}, [F]),
        ({"type": "custom", "custom": {"name": "f"}}, [F]),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}, [F]),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [3]}}, [F]),
    ],
)
def test_a_choice_of_what_is_not_there_is_refused(choice: Any, tools: Any) -> None:
    """By name, with what there is."""
    with pytest.raises(UnsupportedParameter, match="tool_choice") as caught:
        job_of(tools=tools, tool_choice=choice)
    assert caught.value.param == "tool_choice"


@pytest.mark.parametrize(
    ("effort", "think"),
    [
        (None, None),
        ("none", False),
        ("minimal", "low"),
        ("low", "low"),
        ("medium", "medium"),
        ("high", "high"),
        ("xhigh", "high"),
        ("max", "high"),
    ],
)
def test_an_effort_is_how_much_a_model_thinks(effort: str | None, think: Any) -> None:
    """As every model that thinks understands it."""
    assert job_of(reasoning_effort=effort).options.think == think


def test_user_and_metadata_are_kept() -> None:
    """Both travel as the job's metadata."""
    assert job_of(user="u-1", metadata={"k": "v"}).metadata == {"k": "v", "user": "u-1"}


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("n", 2),
        ("logit_bias", {"50256": -100}),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("tool_choice", "required"),
        ("tool_choice", {"type": "function", "function": {"name": "f"}}),
        ("verbosity", "high"),
        ("function_call", {"name": "f"}),
        ("service_tier", "flex"),
        ("modalities", ["text", "audio"]),
        ("store", True),
        ("audio", {"voice": "x"}),
        ("functions", [{}]),
        ("web_search_options", {}),
        ("moderation", {"model": "omni-moderation-latest"}),
    ],
)
def test_what_is_not_supported_is_refused_by_name(param: str, value: Any) -> None:
    """400 with the parameter, never silently ignored."""
    with pytest.raises(UnsupportedParameter) as caught:
        job_of(**{param: value})
    problem = of_error(caught.value)
    assert (problem.status, problem.code, problem.param) == (400, "unsupported", param)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1},
        {"logprobs": False},
        {"store": False},
        {"tool_choice": "auto"},
        {"logit_bias": None},
        {"modalities": ["text"]},
        {"logit_bias": {}},
        {"top_logprobs": 0},
        {"parallel_tool_calls": True},
        {"parallel_tool_calls": False},
        {"service_tier": "auto"},
        {"service_tier": "default"},
        {"verbosity": "medium"},
        {"functions": []},
        {"function_call": "none"},
        {"audio": None},
        {"prompt_cache_key": "conversation-17"},
        {"prompt_cache_retention": "24h"},
        {"prompt_cache_options": {"mode": "explicit", "ttl": "30m"}},
        {"prediction": {"type": "content", "content": "x"}},
        {"stream_options": {"include_obfuscation": True}},
    ],
)
def test_what_changes_nothing_is_accepted(fields: dict[str, Any]) -> None:
    """A hint, a spelled-out default, a wish about something that is not there: the same job as without."""
    assert job_of(**fields) == job_of()


def test_every_parameter_is_judged() -> None:
    """OpenAI's reference of `chat.completions.create`, field by field: each is used, a hint, or refused where it would matter."""
    reference = """audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages metadata
        modalities model moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key prompt_cache_options
        prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier stop store stream
        stream_options temperature tool_choice tools top_logprobs top_p user verbosity web_search_options"""
    assert set(reference.split()) == set(ChatRequest.model_fields) - {"input", "conversation", "cache"}, "these are tutti's own"


def test_what_an_answer_looks_like_can_be_sent_back() -> None:
    """Clients put our answer into the next request as it came, other servers' names of thoughts and marks for caches included."""
    parts = [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}, "prompt_cache_breakpoint": {"mode": "explicit"}}]
    answer: dict[str, Any] = {
        "role": "assistant",
        "content": "yes",
        "refusal": None,
        "reasoning_content": "hm",
        "annotations": [],
        "audio": None,
    }
    refusal = {"role": "assistant", "content": None, "refusal": "no", "reasoning": "hm", "function_call": None}
    job = job_of(messages=[{"role": "user", "content": parts}, answer, refusal, *HELLO])
    assert job.messages is not None
    assert [message.content for message in job.messages] == ["hi", "yes", "no", "hello"]


@pytest.mark.parametrize("tool", [{"type": "custom", "custom": {"name": "f"}}, {"type": "function"}, {"type": "function", "function": {}}])
def test_tools_are_functions_with_a_name(tool: dict[str, Any]) -> None:
    """Any other kind is refused before a model server is bothered with it."""
    with pytest.raises(UnsupportedParameter) as caught:
        job_of(tools=[tool])
    assert caught.value.param == "tools.0"


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "image_url", "image_url": {"url": "http://example.org/x.png"}}],
        [{"type": "image_url", "image_url": {"url": "data:image/png,plain"}}],
        [{"type": "image_url", "image_url": {"url": "data:image/png;base64,not base64"}}],
        [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}],
        [{"type": "image_url", "image_url": {"url": "data:text/html;base64,QUJD"}}],
        [{"type": "image_url"}],
        [{"type": "input_audio", "input_audio": {}}],
        [{"type": "file", "file": {}}],
    ],
)
def test_content_that_would_have_to_be_fetched_or_heard_is_refused(content: Any) -> None:
    """The cluster fetches nothing on a caller's behalf."""
    with pytest.raises(UnsupportedParameter):
        job_of(messages=[{"role": "user", "content": content}])


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"{", "invalid_json", None),
        (b"[]", "invalid_input", None),
        (b"{}", "invalid_input", "messages"),
        (b'{"messages":[],"model":"m"}', "invalid_input", "messages"),
        (b'{"messages":[{"role":"user","content":"x"}],"temprature":1}', "unknown_field", "temprature"),
        (b'{"messages":[{"role":"king","content":"x"}]}', "invalid_input", "messages.0.role"),
        (b'{"messages":[{"role":"user","content":"x"}],"temperature":"SECRET"}', "invalid_input", "temperature"),
    ],
)
def test_malformed_bodies_are_400_and_name_the_field(body: bytes, code: str, param: str | None) -> None:
    """The message names the place and never repeats the value: it may be a prompt."""
    with pytest.raises(ValidationError) as caught:
        ChatRequest.model_validate_json(body)
    problem = of_error(caught.value)
    assert (problem.status, problem.code) == (400, code)
    assert param is None or (problem.param or "").startswith(param)
    assert "SECRET" not in problem.message
