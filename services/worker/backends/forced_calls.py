"""A tool that must be called, where the endpoint has no word for it that counts (Ollama, the embedded node): the answer's schema lets the
model write nothing but a call. Pure.

The tools stand in a system message instead of the template's place for them: calls in the model's own spelling would be held to no schema,
and some templates have no such place.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json, to_json

from services.worker.backends.base import ModelCall
from services.worker.backends.foreign import mapping
from shared.contracts.base import free_json
from shared.contracts.step import Step

_TOLD = (
    "You answer by calling one of these functions. Write the call alone, as a JSON object with `name` and `arguments`, the arguments taken "
    "from the conversation:\n"
)


def is_forced(step: Step) -> bool:
    """Whether the step must end with a call."""
    return step.tool_choice == "required" and bool(step.tools)


def forced(step: Step, messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The messages, with the tools in front of them, and the schema of the answer."""
    functions = [mapping(tool.get("function")) for tool in step.tools]
    told = {"role": "system", "content": _TOLD + "\n".join(to_json(function).decode() for function in functions)}
    forms = [_form(function) for function in functions]
    return [told, *messages], forms[0] if len(forms) == 1 else {"anyOf": forms}


def _form(function: dict[str, Any]) -> dict[str, Any]:
    """The schema of a call. References lead into a schema's own root, where this one's are not: such arguments are any object."""
    parameters = mapping(function.get("parameters"))
    if not parameters or b'"$ref"' in to_json(parameters):
        parameters = {"type": "object"}
    fields = {"name": {"type": "string", "enum": [function.get("name", "")]}, "arguments": parameters}
    return {"type": "object", "properties": fields, "required": ["name", "arguments"]}


def forced_calls(asked: ModelCall, text: str) -> tuple[dict[str, Any], ...]:
    """The call that was written, in OpenAI's form; none where the text is none, as when the token limit has cut it."""
    try:
        call = mapping(from_json(text, allow_inf_nan=False))
        name, arguments = call.get("name"), free_json(call.get("arguments"))
    except ValueError:
        return ()
    names = {mapping(tool.get("function")).get("name") for tool in asked.step.tools}
    if name not in names or not isinstance(arguments, dict):
        return ()
    return (asked.tool_call(0, None, str(name), to_json(arguments).decode()),)
