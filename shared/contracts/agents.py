"""Prompts, agents, profiles, tools and model cards: what administrators declare for patterns, and what of them is pinned in a job.

A version never changes: it is named by its content's digest. An alias names a version and may be moved; `latest` follows each new one. A
reference is `name` (its `latest`), `name@alias` or `name@version`.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from shared.contracts.base import (
    Capability,
    Contract,
    Count,
    EpochSeconds,
    JsonObject,
    Label,
    ModelName,
    Ordinal,
    PerSecond,
    Seconds,
    Sentence,
)
from shared.contracts.chat import Options
from shared.contracts.job import Needs
from shared.contracts.node import Ability
from shared.contracts.usage import Price

MOST_MEMBERS = 24
"""Agents, prompts and tools, each, that one job may use."""
MOST_FALLBACKS = 8
MOST_NAMES = 64
"""Of models that one job may name and that have cards."""
MOST_RATED = 16
"""Models that one job may choose from."""
LATEST = "latest"
NAME = r"[a-z][a-z0-9_-]{0,31}"
ALIAS = r"[a-z0-9][a-z0-9_.-]{0,31}"
DeclaredName = Annotated[str, StringConstraints(pattern=f"^{NAME}$", max_length=32)]
Alias = Annotated[str, StringConstraints(pattern=f"^{ALIAS}$", max_length=32)]
"""Of a version, too: 12 hex digits."""
Reference = Annotated[str, StringConstraints(pattern=f"^{NAME}(?:@{ALIAS})?$", max_length=65)]
Template = Annotated[str, StringConstraints(min_length=1, max_length=32_000)]
Variable = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$", max_length=32)]


class Declared(Contract):
    """Base of what the registry holds in versions. Unknown fields are refused: a misspelt one must not be lost silently."""

    model_config = ConfigDict(extra="forbid")

    about: Sentence = ""
    """What it is for; of an agent, what a coordinator chooses it by."""

    @property
    def version(self) -> str:
        """12 hex digits of the content's digest."""
        return blake2b(self.encoded(exclude_defaults=True), digest_size=6).hexdigest()


class Profile(Declared):
    """How a model is asked: sampling, and what its node must have."""

    options: Options = Options()
    model: ModelName | None = None
    fallback_models: tuple[ModelName, ...] = Field(default=(), max_length=8)
    needs: Needs = Needs()


class Prompt(Declared):
    """A Jinja2 template, rendered in a sandbox, with the variables that it names and no others."""

    template: Template
    variables: tuple[Variable, ...] = Field(default=(), max_length=32)


class Agent(Declared):
    """A role that steps are given to. Exactly one of `system` and `prompt` may say what it is told first."""

    system: Template | None = None
    prompt: Reference | None = None
    """A declared prompt without variables of its own but `agent` and `about`."""
    profile: Reference | None = None
    capability: Capability = "chat"
    """Where its steps lie: `steps.<capability>.<class>`; `chat` where the cluster does not offer this one."""
    model: ModelName | None = None
    tools: tuple[Label, ...] = Field(default=(), max_length=32)
    """Server-side tools that it may use."""
    output: JsonObject | None = None
    """JSON schema of its answers."""


class Tool(Declared):
    """A server-side tool: what models are told of it. What it does is in the hands of the workers that serve its name."""

    parameters: JsonObject = Field(default={"type": "object", "properties": {}})
    """JSON schema of its arguments, an object."""
    idempotent: bool = False
    """It may be called twice for one answer: looking something up is no harm. One that may not is never called again once it may have
    begun.
    """


Tier = Literal["small", "medium", "large"]
"""How much a model can do, and costs, beside the cluster's others. Words, not a number: nobody measures one that orders models of any kind,
and a job demands "a small one", not "0.37 of one"."""
Quality = Annotated[float, Field(ge=0, le=1)]
QueryKind = Literal["code", "maths", "creative", "factual", "other"]
"""Of what a step asks, as far as its words tell (`agents/features`)."""
Readiness = Literal["free", "busy", "cold", "away"]
"""Of a model: in memory beside a free slot; in memory, nowhere with one; on a disk alone; on no live node."""


MOST_COPIES = 1_000


class ModelCard(Declared):
    """What is to be known of a model besides what its nodes tell: which names mean it, what answers in its place, what it is good for."""

    model: ModelName
    """As the nodes spell it."""
    synonyms: tuple[ModelName, ...] = Field(default=(), max_length=16)
    """What callers may ask for instead: `gpt-4o`. The card's own name is one, too."""
    fallbacks: tuple[ModelName, ...] = Field(default=(), max_length=MOST_FALLBACKS)
    """Who answers where no live node has it, unless the job says who: models, or names of other cards, whose own fallbacks follow."""
    tier: Tier | None = None
    capabilities: tuple[Capability, ...] = Field(default=("chat",), max_length=16)
    """What it is for: `embed`, or `chat` and agents'."""
    abilities: tuple[Ability, ...] = Field(default=(), max_length=16)
    quality: dict[Capability, Quality] = Field(default={}, max_length=32)
    """By capability, or kind of query, from 0 to 1, as its administrator judges it. With this, or a tier, it may be chosen for `auto`."""
    window: Ordinal | None = None
    """Tokens, where the nodes do not tell."""
    price: Price | None = None
    """Of a node that has no price of its own for it."""
    options: Options = Options()
    """What a job of it has where it says nothing else."""
    prefers: tuple[Capability, ...] = Field(default=(), max_length=16)
    """Tags of nodes that suit it best."""
    copies: Count = Field(default=0, le=MOST_COPIES)
    """So many nodes are to have it in memory, of those that have it on disk: when one leaves, another loads it."""


class Moved(Contract):
    """An alias as it lies in the registry: where it points, since when, and where it pointed before, newest first."""

    version: Alias
    at: EpochSeconds
    by: Label = ""
    earlier: tuple[Alias, ...] = Field(default=(), max_length=50)


class Member(Contract):
    """An agent as one job uses it, with its prompt and profile put in: what a successor must find, whatever the registry says by then."""

    reference: Reference
    """As the job's input names it."""
    version: Alias
    about: Sentence = ""
    system: Template | None = None
    capability: Capability = "chat"
    model: ModelName | None = None
    fallback_models: tuple[ModelName, ...] = Field(default=(), max_length=8)
    options: Options = Options()
    needs: Needs = Needs()
    tools: tuple[Label, ...] = Field(default=(), max_length=32)
    output: JsonObject | None = None
    prompt: Label | None = None
    """`name@version` of the prompt and the profile that are in it."""
    profile: Label | None = None

    @property
    def name(self) -> str:
        """Without alias or version."""
        return self.reference.partition("@")[0]


class PinnedPrompt(Contract):
    """A prompt as one job uses it, under the reference that the job's input names it by."""

    reference: Reference
    version: Alias
    template: Template
    variables: tuple[Variable, ...] = Field(default=(), max_length=32)


class PinnedTool(Contract):
    """A tool as one job uses it."""

    reference: Reference
    """As the job's input, or one of its agents, names it."""
    version: Alias
    about: Sentence = ""
    parameters: JsonObject
    idempotent: bool = False

    @property
    def name(self) -> str:
        """Without alias or version: what models and workers know it by."""
        return self.reference.partition("@")[0]


class PinnedModel(Contract):
    """What a name that a job asks for stands for."""

    name: ModelName
    """As the job, its input or one of its agents names it."""
    card: Label = ""
    """`name@version`; of a tier, none."""
    model: ModelName
    fallback_models: tuple[ModelName, ...] = Field(default=(), max_length=MOST_FALLBACKS)
    options: Options = Options()
    prices: dict[ModelName, Price] = Field(default={}, max_length=1 + MOST_FALLBACKS)
    """Of those that have one."""
    prefers: tuple[Capability, ...] = Field(default=(), max_length=16)


class Belief(Contract):
    """What was seen of a model at one kind of query: answers that were found good, and bad. Counts, which may fade."""

    good: float = Field(default=0.0, ge=0, le=1e6)
    bad: float = Field(default=0.0, ge=0, le=1e6)


class RatedModel(Contract):
    """A model with a card as one job may choose it: what its card says, and what was known of it when the job was accepted."""

    model: ModelName
    tier: Tier | None = None
    quality: dict[Capability, Quality] = Field(default={}, max_length=32)
    price: Price | None = None
    window: Ordinal | None = None
    """The card's, else the largest of a live node's; None: nobody says."""
    abilities: dict[Ability, bool] = Field(default={}, max_length=16)
    """Those that card or nodes speak of."""
    options: Options = Options()
    prefers: tuple[Capability, ...] = Field(default=(), max_length=16)
    state: Readiness | None = None
    """None: its planner did not know."""
    speed: PerSecond | None = None
    """Tokens a second that the fastest live node writes."""
    load_seconds: Seconds | None = None
    beliefs: dict[QueryKind, Belief] = Field(default={}, max_length=8)
    """Of the job's tenant."""


class Team(Contract):
    """All that a job's pattern may use of the registry."""

    members: tuple[Member, ...] = Field(default=(), max_length=MOST_MEMBERS)
    prompts: tuple[PinnedPrompt, ...] = Field(default=(), max_length=MOST_MEMBERS)
    tools: tuple[PinnedTool, ...] = Field(default=(), max_length=MOST_MEMBERS)
    models: tuple[PinnedModel, ...] = Field(default=(), max_length=MOST_NAMES)
    rated: tuple[RatedModel, ...] = Field(default=(), max_length=MOST_RATED)
    """What `auto` and tiers are chosen from (`agents/suiting`)."""
    profiles: dict[QueryKind, Options] = Field(default={}, max_length=8)
    """What a step has by its kind where its model was chosen."""

    def __bool__(self) -> bool:
        """Whether the pattern may use anything."""
        return self is not NOBODY and self != NOBODY

    def member(self, reference: str) -> Member:
        """Raises KeyError."""
        for member in self.members:
            if member.reference == reference:
                return member
        raise KeyError(reference)

    def prompt(self, reference: str) -> PinnedPrompt:
        """Raises KeyError."""
        for prompt in self.prompts:
            if prompt.reference == reference:
                return prompt
        raise KeyError(reference)


NOBODY = Team()
"""Of a job that uses nothing of it."""
