"""Offered: what may be asked of this cluster: its capabilities, the nodes' models, the patterns. Refusals of what it will never answer."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from services.ingress.admission.suitability import Offer, refusal
from services.ingress.callbacks.allowed import NO_CALLBACKS, CallbackRules
from services.ingress.catalogue import PATTERN_PREFIX, Registry
from services.ingress.problems import Refused, unknown_model, unsuitable_model
from shared.access import Client, Right
from shared.agents.cards import TIER_PREFIX, TIERS, cards_of, resolved
from shared.agents.resolving import demands_of, resolve, with_models
from shared.agents.table import Declarations
from shared.clock import Clock
from shared.contracts.agents import NOBODY, ModelCard
from shared.contracts.bounds import check_job
from shared.contracts.chat import Operation
from shared.contracts.job import Job
from shared.errors import InvalidInput
from shared.model_names import AUTO
from shared.patterns import Patterns
from shared.patterns.port import agents_named, demands_named, prompts_named, tools_named
from shared.patterns.single import SINGLE


@dataclass(frozen=True, slots=True)
class Offered:
    """One per instance. `capabilities`: a step of any other would have no topic to go to."""

    capabilities: frozenset[str]
    patterns: Patterns
    registry: Registry
    clock: Clock
    declared: Declarations
    callbacks: CallbackRules = NO_CALLBACKS

    @property
    def models(self) -> tuple[str, ...]:
        """Every name that may stand for a model: of the nodes' models, of cards and tiers that some node can serve, and of patterns that a
        prompt is enough for.
        """
        found = (name for name, pattern in self.patterns.current.items() if pattern.takes_bare_prompt and name != SINGLE.name)
        names, catalogue = self.registry.catalogue.names, self.registry.catalogue
        if cards := cards_of(self.declared):
            more = (*(name for name, _ in cards.names()), *(f"{TIER_PREFIX}{tier}" for tier in TIERS))
            served = (name for name in more if name not in names and any(map(catalogue.resolve, self.meant(name))))
            names = (*names, *dict.fromkeys(served))
        return (*names, *(f"{PATTERN_PREFIX}{name}" for name in found))

    def meant(self, *models: str, capability: str = "chat") -> tuple[str, ...]:
        """The models that may answer for these names, in order: as their cards say, else themselves."""
        if not self.declared.complete():
            return models
        cards = cards_of(self.declared)
        found: list[str] = []
        for name in models:
            try:
                meant = resolved(cards, name, capability)
            except InvalidInput:  # nothing of it is served
                continue
            found += [name] if meant is None else [meant.model, *meant.fallback_models]
        return tuple(dict.fromkeys(found))

    def window(self, name: str) -> int | None:
        """What the name's card says, where it has one."""
        with suppress(InvalidInput):
            found = cards_of(self.declared).find(name)
            return found.body.window if found is not None and isinstance(found.body, ModelCard) else None
        return None

    def offer(self, job: Job) -> Offer | None:
        """What those that may answer the job offer together."""
        models = self.meant(job.model, *job.fallback_models, capability=job.needed_capability)
        return self.registry.catalogue.offer(models, job.kind.value)

    def pattern_of(self, model: str) -> str | None:
        """The pattern that `tutti/<pattern>` names. Raises Refused (404)."""
        if not model.startswith(PATTERN_PREFIX):
            return None
        name = model.removeprefix(PATTERN_PREFIX)
        if name not in self.patterns.current:
            raise Refused(unknown_model(model, self.models))
        return name

    def resolve(self, model: str, operation: Operation, *others: str) -> str:
        """The registered spelling of a model's name, or the name itself where it has a card or others may stand in for it; `auto` where it
        leaves the choice to the cluster.

        Raises Refused when nodes are registered and none has it (404), or none of those that have it can do this with it (400).
        """
        if AUTO in (model.removeprefix(PATTERN_PREFIX), *others):
            return AUTO
        catalogue = self.registry.catalogue
        if not self.registry.complete or catalogue.nodes == 0:
            return model
        meant = self.meant(model, *others, capability="embed" if operation is Operation.EMBED else "chat")
        found = [name for each in meant if (name := catalogue.resolve(each)) is not None]
        if not found:
            raise Refused(unknown_model(model, self.models))
        if not any((name, operation.value) in catalogue.operations for name in found):
            raise Refused(unsuitable_model(model, operation.value))
        return model if meant != (model,) else found[0]

    def check(self, job: Job, client: Client) -> None:
        """Whether this cluster takes such a job of this client, by whatever route it came.

        Raises Refused (403), InvalidInput (400), and as `resolve`.
        """
        if job.callback is not None:
            self.callbacks.check(job.callback, job.tenant)
        pattern, ask = self.patterns.read(job)
        forked = self.patterns.current.get(getattr(ask, "pattern", ""), pattern)
        if pattern.operated or forked.operated:
            client.check(Right.OPERATE)
        check_job(job, self.capabilities, self.clock.wall())
        if not self.declared.complete():
            return
        team = NOBODY
        if ask.__dict__:
            team = resolve(self.declared, agents_named(ask), prompts_named(ask), self.capabilities, tools_named(ask))
        with_models(self.declared, team, demands_of(job, demands_named(ask, job.model), team), job.needed_capability)

    def check_suits(self, job: Job) -> None:
        """Raises Refused (400, 404): no registered node could ever answer this, so that waiting for one is in vain. As `Patterns.read`."""
        pattern, ask = self.patterns.read(job)
        for model, *others in demands_named(ask, job.model):
            self.resolve(model, Operation.CHAT, *others)
        if self.registry.complete and pattern.hands_on:  # of others each step is judged by itself, later
            problem = refusal(job, self.offer(job))
            if problem is not None:
                raise Refused(problem)
