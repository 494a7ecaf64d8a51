"""The backend of a worker that serves tools: a step's model is the tool's name, its prompt the arguments, its answer the result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import lru_cache

from prometheus_client import Histogram
from pydantic_core import from_json

from services.worker.backends.base import BackendProbe, Completion, Delta, ModelCall, ModelCallFailed
from services.worker.settings import WorkerSettings
from services.worker.tools.calculator import LONGEST, CannotCalculate, calculate
from services.worker.tools.calling import Serve, ToolCall, refused
from services.worker.tools.declared import CalculatorTool, HttpTool, RetrievalTool, ServedTool, ToolsFile, read_tools
from services.worker.tools.fetch import HttpFetch
from services.worker.tools.mcp_servers import McpCall, McpSession
from services.worker.tools.retrieval import Retrieval
from shared.clock import Clock
from shared.contracts.chat import Answer, Operation
from shared.contracts.failure import FailureKind as K
from shared.contracts.node import NodeModel
from shared.contracts.usage import Usage
from shared.errors import ConfigurationError
from shared.telemetry import metrics

CUT = "… (cut off here)"


async def _calculated(call: ToolCall) -> str:
    expression = call.arguments.get("expression")
    if not isinstance(expression, str):
        raise refused(f"`expression` is a text of at most {LONGEST} characters")
    try:
        return calculate(expression)
    except CannotCalculate as error:
        raise refused(str(error)) from None


class ToolsBackend:
    """The tools of one node. Implements `Backend`."""

    kind: str = "tools"

    def __init__(self, file: ToolsFile, settings: WorkerSettings, clock: Clock) -> None:
        """Raises ConfigurationError."""
        served = {name: tool for name, tool in file.tools.items() if not settings.models or name in settings.models}
        self._terms, self._clock = served, clock
        names = {tool.server for tool in served.values() if tool.kind == "mcp"}
        longest = max((tool.seconds for tool in served.values()), default=0.0)
        self._sessions = {name: McpSession(name, file.servers[name], longest) for name in names}
        self._closes = [session.close for session in self._sessions.values()]
        self._tools = {name: self._made(name, tool, settings) for name, tool in served.items()}

    def _made(self, name: str, tool: ServedTool, settings: WorkerSettings) -> Serve:
        match tool:
            case CalculatorTool():
                return _calculated
            case HttpTool():
                return HttpFetch(tool).call
            case RetrievalTool():
                found = Retrieval(tool, settings.slots + 4)
                self._closes.append(found.close)
                return found.call
        return McpCall(self._sessions[tool.server], tool, name).call

    async def call(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        began = self._clock.monotonic()
        outcome = "answered"
        try:
            text = await self._result(call)
        except ModelCallFailed as error:
            outcome = error.kind.value
            raise
        except asyncio.CancelledError:
            outcome = "stopped"
            raise
        finally:
            if call.model in self._tools:
                _seconds(call.model, outcome).observe(self._clock.monotonic() - began)
        yield Completion(Answer(text=text, model=call.model, node=call.node), Usage(calls=1))

    async def _result(self, call: ModelCall) -> str:
        tool, terms = self._tools.get(call.model), self._terms.get(call.model)
        if tool is None or terms is None or call.step.operation is not Operation.TOOL:
            raise ModelCallFailed(K.UNKNOWN_MODEL, f"tool {call.model!r} is not served here")
        try:
            arguments = from_json(call.step.prompt or "{}", allow_inf_nan=False)
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            raise refused("the arguments are no JSON object")
        try:
            async with asyncio.timeout(terms.seconds):
                text = await tool(ToolCall(arguments, call.step.id, call.trace))
        except TimeoutError:
            raise ModelCallFailed(K.MODEL_TIMEOUT, f"the tool has not answered in {terms.seconds:g} s") from None
        return text if len(text) <= terms.characters else text[: terms.characters] + CUT

    async def probe(self) -> BackendProbe:
        return BackendProbe(version="tools")

    async def models(self) -> tuple[NodeModel, ...]:
        return tuple(NodeModel(name=name, operations=(Operation.TOOL.value,), resident=True) for name in self._tools)

    async def close(self) -> None:
        await asyncio.gather(*(close() for close in self._closes))


def tools_backend(settings: WorkerSettings, clock: Clock) -> ToolsBackend:
    """Of the file that the settings name. Raises ConfigurationError."""
    if not settings.tools:
        raise ConfigurationError("TUTTI_WORKER__TOOLS names the file of the tools")
    return ToolsBackend(read_tools(settings.tools), settings, clock)


@lru_cache(maxsize=4_096)
def _seconds(tool: str, outcome: str) -> Histogram:
    return metrics.TOOL_SECONDS.labels(tool, outcome)
