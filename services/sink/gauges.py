"""What Prometheus is told of the fold. Label values are bounded: so many are told apart, all that come later are `other`."""

from __future__ import annotations

from typing import Any

from services.sink.fold import STAGES, ran
from services.sink.port import JobLife
from shared.contracts import event as events
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.node import Node
from shared.telemetry import metrics

OTHER = "other"


class LabelValues:
    """The first `most` values of one label stay what they are."""

    def __init__(self, most: int) -> None:
        self._most, self._known = most, set[str]()

    def __call__(self, value: str) -> str:
        if value not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(value)
        return value


class Gauges:
    """Counts each record once in the life of the process, also when its partition goes and comes back."""

    def __init__(self, most: int) -> None:
        self._tenant, self._model, self._agent, self._pattern, self._node, self._word = (LabelValues(most) for _ in range(6))
        self._counted: dict[str, int] = {}

    def heard(self, home: str, offset: int, fact: Any, job: JobLife) -> None:
        """A fact of a job, in order of offsets."""
        if offset >= self._counted.get(home, -1):
            self._fact(fact, job)

    def passed(self, home: str, offset: int) -> None:
        """All below `offset` was heard."""
        self._counted[home] = max(offset, self._counted.get(home, -1))

    def _fact(self, fact: Any, job: JobLife) -> None:
        tenant = self._tenant(job.tenant or OTHER)
        match fact:
            case events.JobSettled():
                result, usage = fact.result, fact.result.usage
                pattern, status, class_ = self._pattern(result.pattern), result.status.value, result.priority_class.value
                metrics.USAGE_JOBS.labels(tenant, pattern, class_, status).inc()
                metrics.USAGE_JOB_SECONDS.labels(pattern, class_).observe(max(0.0, result.finished_at - result.accepted_at))
                metrics.USAGE_PATTERN_TOKENS.labels(pattern).inc(usage.prompt_tokens + usage.completion_tokens + usage.wasted_tokens)
                metrics.USAGE_COST.labels(tenant).inc(usage.cost)
                metrics.USAGE_TOKENS.labels(tenant, "prompt").inc(usage.prompt_tokens)
                metrics.USAGE_TOKENS.labels(tenant, "completion").inc(usage.completion_tokens)
                metrics.USAGE_TOKENS.labels(tenant, "wasted").inc(usage.wasted_tokens)
            case events.StepAnswered():
                agent, model = self._of(job, fact)
                metrics.USAGE_STEPS.labels(agent, model, "answered").inc()
                metrics.USAGE_MODEL_TOKENS.labels(agent, model).inc(fact.usage.prompt_tokens + fact.usage.completion_tokens)
                metrics.USAGE_MODEL_COST.labels(agent, model).inc(fact.usage.cost)
                for stage in STAGES:
                    metrics.USAGE_STAGE_SECONDS.labels(model, stage).observe(getattr(fact.timings, f"{stage}_ms") / 1000)
            case events.AttemptFailed():
                agent, model = self._of(job, fact)
                metrics.USAGE_MODEL_WASTED.labels(agent, model).inc(fact.usage.as_waste().wasted_tokens)
                metrics.USAGE_ATTEMPTS_FAILED.labels(model, fact.failure.kind.value).inc()
                if fact.retry_after_seconds is None:
                    metrics.USAGE_STEPS.labels(agent, model, "failed").inc()
            case events.WorkWasted():
                metrics.USAGE_MODEL_WASTED.labels(*self._of(job, fact)).inc(fact.usage.as_waste().wasted_tokens)
            case events.StepClaimedBy():
                metrics.USAGE_CLAIMS.labels(self._node(fact.node)).inc()
            case events.StepRetried():
                metrics.USAGE_RETRIES.labels(self._of(job, fact)[1]).inc()

    def _of(self, job: JobLife, fact: Any) -> tuple[str, str]:
        agent, model = ran(job, fact)
        return self._agent(agent), self._model(model)

    def letter(self, letter: DeadLetter) -> None:
        """A dead letter was read."""
        metrics.LETTERS_KEPT.labels(self._word(letter.service), self._word(letter.code)).inc()

    def announced(self, name: str, node: Node | None) -> None:
        """A node says what it is, or has left (None)."""
        label = self._node(name)
        if label == OTHER:
            return
        if node is None:
            for gauge in (metrics.NODE_SLOTS, metrics.NODE_MEMORY_BYTES, metrics.NODE_READY, metrics.NODE_INFO):
                gauge.remove_by_labels({"node": label})
            return
        metrics.NODE_INFO.remove_by_labels({"node": label})  # what it was before
        words = map(self._word, (node.backend, node.version, node.hardware.accelerator or ""))
        metrics.NODE_INFO.labels(label, *words).set(1)
        metrics.NODE_SLOTS.labels(label).set(node.slots)
        metrics.NODE_READY.labels(label).set(int(node.reachable and not node.draining and not node.waits))
        metrics.NODE_MEMORY_BYTES.labels(label, "ram").set(node.hardware.ram_bytes)
        metrics.NODE_MEMORY_BYTES.labels(label, "vram").set(node.hardware.vram_bytes)
