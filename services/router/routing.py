"""Routing: from windows of records to steps given to nodes. Decides; sends nothing. Time is passed in.

windows ──admit──► waiting ──match──► placed (work, then StepRouted)
                      └──────sweep──► closed (delay, failure)  (give_up: failure)

A step that is admitted leaves by exactly one of these ways.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from itertools import islice
from math import inf
from typing import NamedTuple

from services.router import messages, unplaced
from services.router.fairness import WaitingSteps
from services.router.handlers import PendingStep, read_step
from services.router.messages import Closing, Placed
from services.router.settings import RouterSettings
from shared.contracts.base import CLASSES, PriorityClass
from shared.contracts.failure import Failure
from shared.errors import InvalidInput
from shared.kafka.port import Record
from shared.placement.choosing import Chosen, Held, Placement, ask_of
from shared.placement.demand import Demand
from shared.placement.filters import Unplaceable
from shared.processing.tries import Tries, read
from shared.processing.window import Window
from shared.scheduling.urgency import ExpectedSeconds, raised
from shared.telemetry import logs, metrics
from shared.topics import Topics

log = logs.get(__name__)

MOST_HELD = 64
"""Steps in a round that wait for a better node than there is: so far ahead a slow one looks for what is worth its while."""


class _RefusedStep(NamedTuple):
    """A record for the dead letters."""

    record: Record
    window: Window
    error: InvalidInput


class Routing:
    """The steps in this router's hands."""

    def __init__(self, placement: Placement, policy: RouterSettings, topics: Topics) -> None:
        self._placement = placement
        self._policy = policy
        self._topics = topics
        self._classes = {topic: topics.class_of(topic) for topic in topics.all_steps()}
        self._expected = ExpectedSeconds()
        self.tries = Tries()
        self._hopeless: dict[Hashable, None] = {}
        """Demands that no work can be done on."""
        self._shown = {(c, p): metrics.STEPS_WAITING.labels(c, p.value) for c in topics.settings.capabilities for p in CLASSES}
        self._unplaced = {c: metrics.STEPS_UNPLACED.labels(c) for c in topics.settings.capabilities}
        self.waiting: WaitingSteps[PendingStep] = WaitingSteps(interactive_share=policy.interactive_share, quantum=policy.quantum_tokens)

    def admit(self, windows: Iterable[Window], now: float) -> list[_RefusedStep]:
        """Take into the waiting steps what the windows let out; returns the records that are no steps."""
        refused: list[_RefusedStep] = []
        for window in windows:
            if window.buffered:
                while (record := window.take()) is not None:
                    try:
                        self.waiting.add(read(record, partial(self._entry, window, now)))
                    except InvalidInput as error:
                        window.died(record)
                        refused.append(_RefusedStep(record, window, error))
        return refused

    def _entry(self, window: Window, now: float, record: Record) -> PendingStep:
        step = read_step(record, self._topics.settings)
        return PendingStep(record, step, window, self._classes[record.topic], now)

    def match(self, now: float) -> list[Placed]:
        """Give away what can be given now, a round's worth at most; the places are used up."""
        placement, waiting = self._placement, self.waiting
        if not waiting or not placement.ledger.available:
            return []
        placement.begin_round(now, waiting.lanes)  # type: ignore[arg-type]  # lanes here are demands
        placed: list[Placed] = []
        failed: list[PendingStep] = []
        held: list[PendingStep] = []
        with self.tries.chore("choosing the next step"):  # what was placed before it fails is sent
            for entry in islice(waiting.drain(self._open_lane, now), self._policy.round_steps):
                try:
                    found = self._place(entry, now)
                except Exception as error:  # a defect that this step shows: the others go on
                    self._fail(entry.lane, error)
                    failed.append(entry)
                    continue
                if found is not None:
                    placed.append(found)
                    continue
                held.append(entry)
                waiting.not_served(entry)
                if len(held) >= MOST_HELD:
                    break
        for entry in reversed((*held, *failed)):
            waiting.add(entry, front=True)
        return placed

    def _open_lane(self, lane: Hashable) -> bool:
        try:
            return self._placement.open_lane(lane)
        except Exception as error:
            self._fail(lane, error)
            return False

    def _place(self, entry: PendingStep, now: float) -> Placed | None:
        """None: it waits for a better node."""
        ask = ask_of(entry.step, now=now, arrived_at=entry.arrived_at, until=entry.until, priority_class=entry.priority_class)
        chosen = self._placement.choose(entry.lane, ask)
        if isinstance(chosen, Held):
            entry.until = chosen.until
            return None
        assert isinstance(chosen, Chosen), "an open lane has a place"
        self._expected.learn(entry.priority_class, now - entry.arrived_at + chosen.seconds)
        return Placed(entry, chosen, self._placement.ledger.take(chosen.account, entry.step.capability))

    def _fail(self, lane: Hashable, error: Exception) -> None:
        """Judging or placing a step of this demand raised what nobody expected."""
        if self.tries.failed(lane) == 0:
            log.failure("demand_given_up", error)
            self._hopeless[lane] = None

    def give_up(self) -> list[Closing]:
        """Steps on which work failed too often: they end here."""
        if not self._hopeless:
            return []
        hopeless, self._hopeless = self._hopeless, {}
        ends: list[Closing] = []
        for entry in self.waiting.remove(lambda e: e.lane in hopeless):
            try:
                ends.append(messages.failed(entry, unplaced.internal(), self._topics))
            except Exception as error:  # its planner sends it again when it hears nothing
                log.failure("step_not_ended", error, job=entry.step.job)
                entry.finish()
        return ends

    def put_back(self, entry: PendingStep) -> None:
        """It could not be sent; it is the next of its lane."""
        if not entry.window.lost:
            self.waiting.add(entry, front=True)

    def drop_lost(self) -> None:
        """Forget the steps of partitions that have another owner now."""
        self.waiting.remove(lambda entry: entry.window.lost)

    def sweep(self, now: float, *, judge: bool) -> list[Closing]:
        """Steps that end here or leave: past their deadline, or without a node for long enough. `judge`: nodes are known well enough."""
        closings: list[Closing] = []
        for entry in self.waiting.remove(lambda entry: entry.expires_at <= now):
            closings += self._end(entry, self._expire)
        with self.tries.chore("raising steps whose deadline is near"):
            self._raise(now)
        if judge:
            closings += self._mark(now)
            for entry in self._homeless(now):
                closings += self._end(entry, partial(self._leave, now=now))
        return closings

    def _end(self, entry: PendingStep, end: Callable[[PendingStep], list[Closing]]) -> list[Closing]:
        """It has left the waiting ones; one on which that fails goes back, until it is given up."""
        try:
            return end(entry)
        except Exception as error:
            self._fail(entry.lane, error)
            self.waiting.add(entry, front=True)
            return []

    def _expire(self, entry: PendingStep) -> list[Closing]:
        return [messages.failed(entry, unplaced.deadline(entry.step, entry.record.timestamp), self._topics)]

    def _homeless(self, now: float) -> list[PendingStep]:
        """Take out what leaves: of each attempt the record that has waited longest; its copies need nothing more.

        A step that lies in a node's way for minutes pins the position of its partition, and whatever came back from delay meanwhile is
        read again by the next owner, each time that it came. Without this every copy would go round by itself, and come back as many.
        """
        since = now - self._policy.unplaced_after_seconds
        leaving = {entry.attempt for entry in self.waiting if entry.unplaced_at is not None and entry.unplaced_at <= since}
        found = self.waiting.remove(lambda entry: entry.unplaced_at is not None and entry.attempt in leaving) if leaving else []
        longest = {
            entry.attempt: entry for entry in sorted(found, key=lambda entry: entry.step.unplaced_seconds + entry.homeless_seconds(now))
        }
        for entry in found:
            if longest[entry.attempt] is not entry:
                entry.finish()
        return list(longest.values())

    def _raise(self, now: float) -> None:
        """Serve in a higher class what would else miss its deadline, before its own tenant's others there. Nothing falls back."""
        ages = self.waiting.ages(now)

        def expected(priority_class: PriorityClass) -> float:
            return max(self._expected.of(priority_class), ages.get(priority_class, 0.0))

        higher: dict[PendingStep, PriorityClass] = {}
        for entry in self.waiting:
            left = entry.expires_at - now
            if left < inf:
                served_as = raised(entry.priority_class, left, expected)
                if served_as is not entry.priority_class:
                    higher[entry] = served_as
        if higher:
            for entry in reversed(self.waiting.remove(lambda entry: entry in higher)):
                metrics.STEPS_RAISED.labels(higher[entry].value).inc()
                entry.priority_class = higher[entry]
                self.waiting.add(entry, front=True)

    def _mark(self, now: float) -> list[Closing]:
        """Note since when there is no node; returns the news of steps for which there is one again."""
        missing: dict[Demand, bool] = {}
        news: list[Closing] = []
        for entry in self.waiting:
            unplaceable = missing.get(entry.lane)
            if unplaceable is None:
                unplaceable = missing[entry.lane] = self._unplaceable(entry.lane)
            if unplaceable:
                entry.unplaced_at = now if entry.unplaced_at is None else entry.unplaced_at
                continue
            entry.unplaced_at = None
            if entry.step.missing:
                news += self._there_again(entry)
        return news

    def _there_again(self, entry: PendingStep) -> list[Closing]:
        try:
            news = [messages.unplaced(entry, (), self._topics)]
            entry.step = entry.step.changed(missing=())
        except Exception as error:
            self._fail(entry.lane, error)
            return []
        return news

    def _unplaceable(self, lane: Demand) -> bool:
        try:
            return isinstance(self._placement.candidates(lane), Unplaceable)
        except Exception as error:
            self._fail(lane, error)
            return False

    def _leave(self, entry: PendingStep, now: float) -> list[Closing]:
        """To delay, and the planner is told what is missing unless it knows; or the end."""
        found = self._placement.candidates(entry.lane)
        assert isinstance(found, Unplaceable)
        waited, left = entry.homeless_seconds(now), entry.expires_at - now
        fate = unplaced.decide(entry.step, found, waited, left, self._policy)
        if isinstance(fate, Failure):
            return [messages.failed(entry, fate, self._topics)]
        news = [] if found.missing == entry.step.missing else [messages.unplaced(entry, found.missing, self._topics)]
        self._unplaced[entry.step.capability].inc()
        return [*news, messages.delayed(entry, fate, self._topics)]

    def show(self) -> None:
        """What waits, by capability and class: of each that there is, since a scaler takes a missing series for an unknown number."""
        waiting = Counter((entry.step.capability, entry.priority_class) for entry in self.waiting)
        for of, gauge in self._shown.items():
            gauge.set(waiting[of])
