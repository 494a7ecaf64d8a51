"""Offered: what may be asked of this cluster: its capabilities, the nodes' models, the patterns. Refusals of what it will never answer."""

from __future__ import annotations

from dataclasses import dataclass

from services.ingress.admission.suitability import refusal
from services.ingress.callbacks.allowed import NO_CALLBACKS, CallbackRules
from services.ingress.catalogue import PATTERN_PREFIX, Registry
from services.ingress.problems import Refused, unknown_model, unsuitable_model
from shared.agents.resolving import resolve
from shared.agents.table import Declarations
from shared.clock import Clock
from shared.contracts.bounds import check_job
from shared.contracts.chat import Operation
from shared.contracts.job import Job
from shared.model_names import AUTO
from shared.patterns import Patterns
from shared.patterns.port import agents_named, models_named, prompts_named, tools_named
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
        """Every name that may stand for a model: of the nodes' models, and of patterns that a prompt is enough for."""
        found = (name for name, pattern in self.patterns.current.items() if pattern.takes_bare_prompt and name != SINGLE.name)
        return (*self.registry.catalogue.names, *(f"{PATTERN_PREFIX}{name}" for name in found))

    def pattern_of(self, model: str) -> str | None:
        """The pattern that `tutti/<pattern>` names. Raises Refused (404)."""
        if not model.startswith(PATTERN_PREFIX):
            return None
        name = model.removeprefix(PATTERN_PREFIX)
        if name not in self.patterns.current:
            raise Refused(unknown_model(model, self.models))
        return name

    def resolve(self, model: str, operation: Operation) -> str:
        """The registered spelling of a model's name; `auto` where it leaves the choice to the cluster.

        Raises Refused when nodes are registered and none has it (404), or none of those that have it can do this with it (400).
        """
        if model.removeprefix(PATTERN_PREFIX) == AUTO:
            return AUTO
        catalogue = self.registry.catalogue
        if not self.registry.complete or catalogue.nodes == 0:
            return model
        found = catalogue.resolve(model)
        if found is None:
            raise Refused(unknown_model(model, self.models))
        if (found, operation.value) not in catalogue.operations:
            raise Refused(unsuitable_model(model, operation.value))
        return found

    def check(self, job: Job) -> None:
        """Whether this cluster takes such a job, by whatever route it came.

        Raises NotOffered, TooFarAhead, UnknownPattern, InvalidPatternInput, CallbackRefused (400), and as `resolve`.
        """
        if job.callback is not None:
            self.callbacks.check(job.callback, job.tenant)
        _, ask = self.patterns.read(job)
        check_job(job, self.capabilities, self.clock.wall())
        if type(ask).model_fields and self.declared.complete():
            resolve(self.declared, agents_named(ask), prompts_named(ask), self.capabilities, tools_named(ask))

    def check_suits(self, job: Job) -> None:
        """Raises Refused (400, 404): no registered node could ever answer this, so that waiting for one is in vain. As `Patterns.read`."""
        pattern, ask = self.patterns.read(job)
        for model in models_named(ask):
            self.resolve(model, Operation.CHAT)
        if self.registry.complete and pattern.hands_on:  # of others each step is judged by itself, later
            problem = refusal(job, self.registry.catalogue.offer((job.model, *job.fallback_models), job.kind.value))
            if problem is not None:
                raise Refused(problem)
