"""Turns: a job of a conversation begins when the conversation's owner says so, and owes him its end. Pure (model: `test_turns`).

It asks again by a timer, and a successor asks anew, until it is granted its turn or refused one; meanwhile it only waits, and holds no
place. What it is granted it begins once: `TurnBegun` holds the serial. A grant of what is over here, or was never here, is answered with
an end.
"""

from __future__ import annotations

from services.planner.deciding import driving, ending, waits
from services.planner.draft import Tell
from services.planner.job.live import LiveJob
from services.planner.round import Round
from shared.contracts.conversation import TurnAsked, TurnBegun, TurnEnded, TurnGranted, TurnRefused
from shared.contracts.failure import Failure, FailureKind
from shared.telemetry import logs
from shared.telemetry.tracing import trace_id

log = logs.get(__name__)

_AGAIN_SECONDS = 5.0
"""When a refused job is worth submitting again."""


def ask(round_: Round, job: LiveJob) -> None:
    """The owner hears of it once that it is accepted is acknowledged; again later, if he says nothing."""
    book = round_.book
    asked = TurnAsked(
        tenant=job.accepted.request.tenant, conversation=_conversation(job), job=job.id, home=book.home
    )  # fmt: skip
    round_.after.append(Tell(None, asked))
    book.live_count.keep(job, *round_.close(job.id))
    job.turn_due = round_.now + book.policy.conversations.ask_seconds
    waits.rest(round_, job)
    book.arm(job)


def on_granted(round_: Round, granted: TurnGranted) -> None:
    """The job begins, unless it has; of one that this home does not have, or that has another turn, the turn is over."""
    job = round_.book.jobs.get(granted.job)
    if job is None or job.accepted.request.conversation is None or (job.turn is not None and job.turn.turn != granted.turn):
        over = TurnEnded(tenant=granted.tenant, conversation=granted.conversation, job=granted.job, turn=granted.turn)
        round_.after.append(Tell(None, over, sure=False))
        return
    if job.turn is not None or job.settled is not None or job.ending is not None:
        return  # its end is on its way, or will be
    round_.emit(
        job,
        TurnBegun(
            **round_.about(job.id),
            turn=granted.turn,
            context=granted.context,
            older=granted.older,
            idle_seconds=waits.idle_until(job, round_),
        ),
    )
    log.debug("turn_begun", job=job.id, trace=trace_id(job.accepted.trace))
    driving.drive(round_, job)


def on_refused(round_: Round, refused: TurnRefused) -> None:
    """There is no room for it to wait."""
    job = round_.book.jobs.get(refused.job)
    if job is not None and job.awaits_turn:
        failure = Failure(kind=FailureKind.LIMIT, message=refused.message, limit=refused.limit, retry_after_seconds=_AGAIN_SECONDS)
        ending.begin(round_, job, failure)


def _conversation(job: LiveJob) -> str:
    name = job.accepted.request.conversation
    assert name is not None, "it has one"
    return name
