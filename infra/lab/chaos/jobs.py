"""Jobs: what is asked for, from the seed; and the ledger of what was sent and what has ended."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from random import Random

from pydantic_core import to_json

from shared.contracts import ids
from shared.contracts.base import CLASSES, PriorityClass
from shared.patterns import BUILT_IN

NEVER = float("inf")
FAILS_SOMETIMES = "[fails sometimes]"
"""The simulated nodes fail every fifth request or so whose prompt holds this."""
_ATTEMPTS = 12
"""So many that faults and failing nodes together do not use them up: an ended job that failed would hide what happened to it."""
_TOKENS = 8
_MIX = (
    ("single", 35), ("often", 8), ("chain", 12), ("retries", 15), ("delayed", 20), ("pattern", 2), ("talk", 3), ("tool", 2), ("policed", 3),
)  # fmt: skip
_TALKS = 500
"""Conversations: so many that nearly no job waits long for its turn."""
_QUESTIONS = 40
"""Of those that are asked often, by each tenant: equal ones meet at the cache."""
_PATTERNS = sorted(name for name, pattern in BUILT_IN.current.items() if pattern.takes_bare_prompt and name != "single")
"""Each makes several calls, some decided by a schema that the simulated nodes obey."""
POLICED = "policed"
"""A tenant whose inputs and answers critics check; what they cannot check passes, so that every job succeeds."""
POLICIES = {
    "policies": [
        {"direction": "input", "checks": {"personal_data": ["email"]}, "action": "redact", "away": "pass"},
        {"direction": "answer", "checks": {"secrets": True, "repetition": True}, "action": "flag"},
    ]
}
_REST_SHARE = 0.03
_TALKER = "talker"
_ASKING = tuple(f"tenant-{number}" for number in range(7))
TENANTS = (*_ASKING, POLICED, _TALKER)
"""All that have jobs."""
CALLED_EVERY = 20
"""Of so many jobs one has a callback, where there is a receiver."""
_LONGEST_DELAY_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One job. `not_before` in epoch seconds."""

    number: int
    id: str
    kind: str
    priority_class: PriorityClass
    body: bytes
    not_before: float | None
    over_rest: bool


class JobMix:
    """The n-th job follows from the seed and n; only `not_before` is relative to the moment of sending."""

    def __init__(self, seed: int, prefix: str, hook: str | None = None) -> None:
        """`hook`: whom some jobs call back."""
        self._seed, self._prefix, self._hook = seed, prefix, hook

    def job(self, number: int, now: float) -> Asked:
        random = Random(f"{self._seed}/{number}")
        kind = random.choices([name for name, _ in _MIX], [weight for _, weight in _MIX])[0]
        priority_class = random.choice(CLASSES)
        over_rest = random.random() < _REST_SHARE
        not_before = now + random.uniform(0.2, _LONGEST_DELAY_SECONDS) if kind == "delayed" else None
        body: dict[str, object] = {
            "id": self.id_of(number),
            "tenant": POLICED if kind == "policed" else _ASKING[number % len(_ASKING)],
            "prompt": f"question {number}" + (f" {FAILS_SOMETIMES}" if kind == "retries" else ""),
            "options": {"max_tokens": _TOKENS},
            "limits": {"attempts": _ATTEMPTS},
        }
        if not_before is not None:
            body["not_before"] = not_before
        if kind == "chain":
            body |= {"pattern": "chain", "chain": [{"name": "draft", "template": "{input}"}, {"name": "final", "template": "{draft}"}]}
        if kind == "talk":
            body |= {"conversation": f"talk-{number % _TALKS}", "tenant": _TALKER}
        if kind == "tool":
            body |= {"pattern": "tools", "input": {"tool": "calculator"}, "prompt": f'{{"expression": "{number} + 1"}}'}
        if kind == "pattern":
            body |= {"pattern": _PATTERNS[number % len(_PATTERNS)], "prompt": f"question {number}\nand more"}
            body["options"] = {"max_tokens": 256}
        if self.is_called(number):
            body["callback"] = {"url": self._hook}
        if kind == "policed":
            body["prompt"] = f"question {number} of policed@example.com"
        if kind == "often":
            asked = {"prompt": f"question {number % _QUESTIONS}", "model": "small", "cache": {"mode": "exact", "ttl": 30}}
            body |= {**asked, "options": {"max_tokens": 2 * _TOKENS, "temperature": 0}}
        if over_rest:
            body["class"] = priority_class.value
        return Asked(number, self.id_of(number), kind, priority_class, to_json(body), not_before, over_rest)

    def is_called(self, number: int) -> bool:
        return self._hook is not None and number % CALLED_EVERY == 0

    def id_of(self, number: int) -> str:
        return f"{self._prefix}{number}"

    def number_of(self, job: str) -> int | None:
        """None for a job that is not ours."""
        job = ids.public(job)
        digits = job.removeprefix(self._prefix)
        return int(digits) if job.startswith(self._prefix) and digits.isdigit() else None


@dataclass(frozen=True, slots=True)
class Met:
    """What somebody met over REST that was no answer. Monotonic seconds."""

    at: float
    what: str


class Ledger:
    """Moments of every job, monotonic seconds; jobs are numbers from 0 on."""

    def __init__(self) -> None:
        self.acknowledged = array("d")
        self.due = array("d")
        """When it may begin: at once, or at `not_before`."""
        self.ended = array("d")
        self.open: set[int] = set()
        """Sent and not ended."""
        self.sent_again = 0
        self.met: list[Met] = []
        self.repeated_results = 0

    @property
    def count(self) -> int:
        return len(self.ended)

    def on_sent(self, due: float) -> int:
        """Before the first attempt to send; returns the job's number."""
        self.acknowledged.append(NEVER)
        self.due.append(due)
        self.ended.append(NEVER)
        self.open.add(self.count - 1)
        return self.count - 1

    def on_acknowledged(self, number: int, now: float) -> None:
        self.acknowledged[number] = min(self.acknowledged[number], now)

    def on_result(self, number: int, now: float) -> None:
        if self.ended[number] == NEVER:
            self.ended[number] = now
            self.open.discard(number)
        else:
            self.repeated_results += 1

    def in_flight(self, now: float) -> set[int]:
        """Acknowledged, due and without a result."""
        return {number for number in self.open if self.acknowledged[number] <= now and self.due[number] <= now}
