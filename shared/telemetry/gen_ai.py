"""Names of OpenTelemetry's `gen_ai` conventions, as of 2026-09, when none of them was stable: what is renamed is mended here."""

from __future__ import annotations

from types import MappingProxyType

OPERATION, PROVIDER, ERROR = "gen_ai.operation.name", "gen_ai.provider.name", "error.type"
WORKFLOW, AGENT, TOOL, CONVERSATION = "gen_ai.workflow.name", "gen_ai.agent.name", "gen_ai.tool.name", "gen_ai.conversation.id"
REQUEST_MODEL, RESPONSE_MODEL, FINISH_REASONS = "gen_ai.request.model", "gen_ai.response.model", "gen_ai.response.finish_reasons"
INPUT_TOKENS, OUTPUT_TOKENS = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"

INVOKE_WORKFLOW, INVOKE_AGENT, EXECUTE_TOOL, CHAT, EMBEDDINGS = "invoke_workflow", "invoke_agent", "execute_tool", "chat", "embeddings"
"""Values of OPERATION."""
OPERATION_OF = MappingProxyType({"embed": EMBEDDINGS})
"""Agent → what its model is asked for; of others CHAT."""
PROVIDER_NAME = "tutti"
"""Whoever asks tutti for a model does not know what serves it."""
