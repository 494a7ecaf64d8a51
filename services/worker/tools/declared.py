"""The operator's file of tools: which there are, what each does, and its bounds. YAML or JSON; what is misspelt is refused by its place."""

from __future__ import annotations

import os
from typing import Annotated, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from shared.contracts.agents import DeclaredName, Tool
from shared.contracts.base import JsonObject
from shared.errors import ConfigurationError
from shared.settings import operators_file

MOST_TOOLS_SERVED = 200
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+(?:/[^\s?#]*)?$", max_length=2_048)]
EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$", max_length=128)]
Argument = Annotated[str, StringConstraints(max_length=4_096)]


def _allowed(entry: str) -> str:
    """`example.com` is `https://example.com/`."""
    return entry if "://" in entry else f"https://{entry}/"


Allowed = Annotated[
    str,
    StringConstraints(pattern=r"^(?:https?://)?[A-Za-z0-9.\-\[\]:]+(?:/[A-Za-z0-9._~/\-]*)?$", max_length=2_048),
    AfterValidator(_allowed),
]
"""A host, or the beginning of addresses."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _ToolTerms(_Strict):
    """What all kinds have. `about` and `parameters` replace what the kind tells of itself."""

    about: str | None = Field(default=None, min_length=1, max_length=4_096)
    parameters: JsonObject | None = None
    idempotent: bool | None = None
    at_once: int | None = Field(default=None, ge=1, le=1_000)
    """So many may use it at once, in the whole cluster: its permits. None: as many as the workers that serve it have slots."""
    seconds: float = Field(default=30.0, gt=0, le=600)
    """Of one call."""
    characters: int = Field(default=16_000, ge=100, le=60_000)
    """Of its result; what is longer is cut, and says so."""


class CalculatorTool(_ToolTerms):
    """Arithmetic."""

    kind: Literal["calculator"]


class HttpTool(_ToolTerms):
    """Reads pages, of these addresses and no others."""

    kind: Literal["http"]
    allow: tuple[Allowed, ...] = Field(min_length=1, max_length=256)
    private_addresses: bool = False
    """An allowed name may lead to addresses that are not public. One that is spelled as an address is meant as it is."""


class RetrievalTool(_ToolTerms):
    """Asks an operator's endpoint for passages: `POST {"query", "count"}`, answered by `{"passages": [{"text", "source"?}]}`."""

    kind: Literal["retrieval"]
    url: Url
    passages: int = Field(default=6, ge=1, le=50)
    token_env: EnvironmentName | None = None
    """Variable that holds a bearer token."""


class McpTool(_ToolTerms):
    """One tool of an MCP server. Only what is listed so can be called."""

    kind: Literal["mcp"]
    server: DeclaredName
    name: str | None = Field(default=None, min_length=1, max_length=200)
    """At the server, where that is another."""


class McpServer(_Strict):
    """Where an MCP server is: a program that the worker starts and speaks to over its pipes, or an address (Streamable HTTP)."""

    command: tuple[Argument, ...] = Field(default=(), max_length=100)
    env: dict[EnvironmentName, Argument] = Field(default={}, max_length=100)
    """Besides HOME, PATH and the like: it gets nothing else of the worker's environment."""
    url: Url | None = None
    token_env: EnvironmentName | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.command) == bool(self.url):
            raise ValueError("an MCP server has `command` or `url`")
        if (self.url and self.env) or (self.command and self.token_env):
            raise ValueError("`env` is for a command, `token_env` for a url")
        return self


ServedTool = Annotated[CalculatorTool | HttpTool | RetrievalTool | McpTool, Field(discriminator="kind")]


class ToolsFile(_Strict):
    """The whole file."""

    tools: dict[DeclaredName, ServedTool] = Field(min_length=1, max_length=MOST_TOOLS_SERVED)
    servers: dict[DeclaredName, McpServer] = Field(default={}, max_length=50)
    slots: int = Field(default=16, ge=1, le=1_000)
    """Calls at once of all tools that have no permits, on this worker."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name, tool in self.tools.items():
            if isinstance(tool, McpTool) and tool.server not in self.servers:
                raise ValueError(f"tool {name} is of server {tool.server}, which is not among `servers`")
        return self


def read_tools(path: str) -> ToolsFile:
    """Raises ConfigurationError, which quotes nothing of the file."""
    return operators_file(path, "tools", ToolsFile, yaml.safe_load, "YAML or JSON")


def token(variable: str | None) -> dict[str, str]:
    """The header for a bearer token out of the environment. Raises ConfigurationError where it is not there."""
    if variable is None:
        return {}
    value = os.environ.get(variable, "")
    if not value.isascii() or not value.isprintable() or not value:
        raise ConfigurationError(f"the environment has no {variable}, or it is no token")
    return {"Authorization": f"Bearer {value}"}


_ARITHMETIC = (
    "Calculates an arithmetic expression, exactly where that is possible: + - * / // % ** and parentheses, numbers, pi, e, sqrt, abs, "
    "round, floor, ceil, min, max, log, log10, exp, sin, cos, tan."
)
_TOLD: dict[str, tuple[str, str, str, int]] = {
    "calculator": (_ARITHMETIC, "expression", "for example (17 + 4.5) * 3", 500),
    "http": ("Reads a page of one of these addresses: {allow}.", "url", "the whole address", 2_000),
    "retrieval": ("Searches for passages of documents.", "query", "what to look for", 2_000),
}
"""Kind → (about; its one argument: name, meaning, most characters)"""


def declaration(tool: ServedTool, listed: Tool | None = None) -> Tool:
    """What is declared of it: what models are told. `listed`: of an MCP tool, what its server says."""
    if listed is None:
        about, name, meaning, most = _TOLD[tool.kind]
        if isinstance(tool, HttpTool):
            about = about.format(allow=", ".join(tool.allow))
        fields = {name: {"type": "string", "description": meaning, "minLength": 1, "maxLength": most}}
        parameters = {"type": "object", "properties": fields, "required": [name], "additionalProperties": False}
        listed = Tool(about=about[:4_096], parameters=parameters, idempotent=True)
    own = {"about": tool.about, "parameters": tool.parameters, "idempotent": tool.idempotent}
    return listed.changed(**{name: value for name, value in own.items() if value is not None})
