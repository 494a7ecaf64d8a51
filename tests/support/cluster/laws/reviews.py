"""Reviews: each is decided once, each person counts once, and who was told by REST what became of his decision was told the truth."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from shared.contracts.event import JobSettled
from shared.contracts.failure import FailureKind
from shared.contracts.review import ReviewDecided, ReviewOpened
from tests.support.cluster.rest import Request
from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "reviews"
_PATH = re.compile(r"/v1/reviews/.+\.([0-9a-f]{32})(?:\?|$)")


def check(world: World) -> Iterator[Violation]:
    """Over every valid event, in order."""
    opened: dict[str, ReviewOpened] = {}
    decided: dict[str, list[ReviewDecided]] = defaultdict(list)
    ends: dict[str, JobSettled] = {}
    for written in world.history.all_valid():
        event = written.value
        if isinstance(event, ReviewOpened):
            if event.step in opened:
                yield Violation(LAW, f"review {event.step} was opened twice", event.job)
            opened[event.step] = event
        elif isinstance(event, ReviewDecided):
            if event.job in ends or event.step not in opened:
                yield Violation(LAW, f"a decision on review {event.step}, which is not open", event.job)
            decided[event.step].append(event)
        elif isinstance(event, JobSettled):
            ends[event.job] = event
    for step, review in opened.items():
        yield from _decided(review, decided[step], ends.get(review.job))
    for request in world.requests:
        found = _PATH.match(request.path)
        if found is not None and found[1] in opened and request.answer.complete:
            yield from _told(request, opened[found[1]].job, decided[found[1]])


def _decided(review: ReviewOpened, said: list[ReviewDecided], end: JobSettled | None) -> Iterator[Violation]:
    people = [event.by for event in said if event.by is not None]
    if len(people) != len(set(people)):
        yield Violation(LAW, f"one person counted twice in review {review.step}", review.job)
    if any(event.over for event in said[:-1]):
        yield Violation(LAW, f"review {review.step} was decided twice", review.job)
    if not said or not said[-1].over:
        return
    last = said[-1]
    agreeing = sum(event.by is not None and (event.verdict, event.text) == (last.verdict, last.text) for event in said)
    if last.by is not None and last.verdict != "reject" and agreeing < review.quorum:
        yield Violation(LAW, f"review {review.step} was decided by {agreeing} people; {review.quorum} must agree", review.job)
    failure = None if end is None else end.result.failure
    if failure is not None and (failure.kind is FailureKind.GATE_FAILED) != (last.verdict == "reject") and failure.kind in _OWN:
        yield Violation(LAW, f"the job ended with {failure.kind} after {last.verdict}", review.job)


_OWN = (FailureKind.GATE_FAILED, FailureKind.INTERNAL, FailureKind.NON_DETERMINISTIC_PATTERN)


def _told(request: Request, job: str, said: list[ReviewDecided]) -> Iterator[Violation]:
    """By REST everybody is `open`: no keys are configured."""
    heard = any(event.by == "open" and event.verdict == request.body["verdict"] for event in said)
    if request.answer.status == 200 and not heard:
        yield Violation(LAW, "somebody was told that he was heard, and was not", job)
    if request.answer.status == 409 and heard:
        yield Violation(LAW, "somebody was told that he was not heard, and was", job)
