"""Funding: at the end of a round those of a home's jobs begin that their tenants' budgets allow, and what is lacking is asked for. Pure."""

from __future__ import annotations

from services.planner.budgets.shares import Wants
from services.planner.deciding import driving
from services.planner.job.live import LiveJob
from services.planner.job.open_step import OpenStep, Phase
from services.planner.round import Round
from services.planner.state.funds import TIMER, need_of
from shared.contracts.budget import day_of
from shared.contracts.event import StepFunded
from shared.processing.tries import Chore

_CHORE = "the budget"
_PACE_SECONDS = 0.05
"""A tenant's timer fires no sooner than this after a round that looked at it."""


def fund(round_: Round) -> None:
    """At the end of a round's decisions: let those begin that can, ask for what is lacking, record what changed."""
    book = round_.book
    touched: dict[str, None] = {}
    while book.funds.shares.attention:
        tenant = next(iter(book.funds.shares.attention))
        del book.funds.shares.attention[tenant]
        touched[tenant] = None
        if book.tries.may(Chore(_CHORE, tenant)):
            _serve(round_, tenant)
    for tenant in touched:
        if book.tries.may(Chore(_CHORE, tenant)):
            book.funds.shares.ask(round_, tenant)
            book.timers.set(TIMER + tenant, max(book.funds.shares.due_at(tenant), round_.now + _PACE_SECONDS))
    for ledger in (book.funds.accounts, book.funds.shares):
        ledger.kept.flush(round_, lambda key: book.tries.may(Chore(_CHORE, key[0])))


def _serve(round_: Round, tenant: str) -> None:
    """In order of arrival; who needs less may begin before who needs more: each waits at most its time."""
    book = round_.book
    lacks: list[Wants] = []
    for job_id, step_id in list(book.funds.waiting.get(tenant, ())):
        found = book.find(job_id, step_id)
        if found is None or found[1].phase is not Phase.UNFUNDED:
            book.funds.waiting[tenant].pop((job_id, step_id), None)
            continue
        job, step = found
        book.tries.at = job_id
        funding = book.funds.reserve(round_, job, need_of(step), waits=True)
        if funding.lacks is not None:
            lacks.append(funding.lacks)
        elif funding.failure is not None:
            driving.fail_attempt(round_, job, step, funding.failure, wait=None)
            driving.drive(round_, job)
        else:
            _begin(round_, job, step, day_of(round_.wall) if funding.day is None else funding.day)
    book.tries.at = Chore(_CHORE, tenant)
    if not book.funds.waiting.get(tenant):
        book.funds.waiting.pop(tenant, None)
    book.funds.shares.wanted(tenant, lacks)


def _begin(round_: Round, job: LiveJob, step: OpenStep, day: int) -> None:
    """Out it goes, once that it may is acknowledged: the attempt itself may have begun in this very round."""
    round_.book.funds.waiting[job.accepted.request.tenant].pop((job.id, step.id), None)
    event = StepFunded(**round_.about(job.id), step=step.id, attempt=step.attempt, charged_day=day)
    round_.emit(job, event)
    round_.after.append(driving.dispatch(round_, job, step))
    round_.book.arm(job)
