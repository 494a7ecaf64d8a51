"""`GET /v1/reviews`, `GET/POST /v1/reviews/{id}`: what people are asked, and what they say. An id is the job's and the step's: `job.step`.

What somebody says goes to the job's home; its planner alone says by events whether it counts, and the answer waits for that. Said again it
changes nothing, and the answer is the same.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from services.ingress.handlers import Door
from services.ingress.problems import Problem, Refused
from services.ingress.routes.asking import Routes, as_json, body_of, caller, client_of, unknown
from services.ingress.routes.telling import heard
from services.ingress.status.reviews import KnownReview
from shared.access import Client
from shared.contracts import ids
from shared.contracts.review import REVIEW_BYTES, Deliberation, ReviewGiven, Said, Unheard

_MOST_SHOWN = 1_000
_WORDS = {
    Unheard.OVER: (409, "the review is over: others have decided, its time has passed, or its job has ended"),
    Unheard.CHANGED: (409, "the review is of another text than the digest says: look at it again"),
    Unheard.SAID_OTHERWISE: (409, "you have decided otherwise on this review; that stands"),
    Unheard.NOT_ASSIGNED: (403, "others are asked to decide on this review"),
}


class ReviewSubmission(Said):
    """The body of a POST. `digest`: as the review showed it, of the text that was looked at."""

    model_config = ConfigDict(extra="forbid")

    digest: Annotated[str, Field(pattern="^[0-9a-f]{32}$", max_length=32)]


class _ReviewRoutes:
    """Answers come from what this instance has read of `job-events`."""

    def __init__(self, door: Door) -> None:
        self._door, self._reviews = door, door.events.reviews

    async def list(self, request: Request) -> Response:
        """The open reviews that the caller may see, those first whose time is over first, without their texts; `?mine=true`: that he may
        decide.
        """
        client = caller(self._door, request)
        mine = request.query_params.get("mine") == "true"
        seen = (known for known in self._reviews if client.may_see(known.deliberation.opened.tenant))
        shown = sorted(
            (known for known in seen if not mine or known.deliberation.may_decide(client.name)),
            key=lambda known: known.deliberation.opened.due_at,
        )
        return as_json({"reviews": [_view(known.deliberation) for known in islice(shown, _MOST_SHOWN)]})

    async def get(self, request: Request) -> Response:
        """One review with its text; also one that is over, for a while."""
        _, known = self._known(request)
        opened = known.deliberation.opened
        text = await self._reviews.text_of(known, self._door.journal.after(opened.job, known.offset - 1))
        return as_json({**_view(known.deliberation), "artefact": text})

    async def decide(self, request: Request) -> Response:
        """200: it counts; 202: in Kafka, and not known yet what becomes of it, so ask again; 403, 409: it does not count, and why."""
        door, said = self._door, await body_of(self._door, request, ReviewSubmission, REVIEW_BYTES)
        client, known = self._known(request)
        review, opened = known.deliberation, known.deliberation.opened
        given = ReviewGiven(job=opened.job, step=opened.step, by=client.name, **dict(said))
        if self._fate(known, given) is None:
            write = partial(door.submitter.decide, given, known.home, opened.tenant)
            await heard(door, opened.tenant, opened.job, lambda: self._fate(known, given) is not None, write)
        fate = self._fate(known, given)
        if isinstance(fate, Unheard):
            status, message = _WORDS[fate]
            raise Refused(Problem(status, fate.value, message))
        return as_json({**_view(review), "heard": fate}, 202 if fate is None else 200)

    def _fate(self, known: KnownReview, given: ReviewGiven) -> Unheard | bool | None:
        """What history says of it: heard, or why not; None: nothing yet, or nothing that is known to be history."""
        if not self._door.events.established(known.home):
            return None
        return True if known.deliberation.heard(given) else known.deliberation.refusal(given)

    def _known(self, request: Request) -> tuple[Client, KnownReview]:
        """Raises Refused (403, 404): unknown and not his look alike."""
        job, _, step = str(request.path_params["review"]).rpartition(".")
        client, tenant = client_of(self._door, request)
        known = self._reviews.get(ids.qualified(tenant, job), step)
        if known is None or not client.may_see(known.deliberation.opened.tenant):
            raise unknown("there is no such review")
        return client, known


def routes(door: Door) -> Routes:
    """By path and method."""
    own = _ReviewRoutes(door)
    return {
        "/v1/reviews": {"GET": own.list},
        "/v1/reviews/{review}": {"GET": own.get, "POST": own.decide},
    }


def _view(review: Deliberation) -> dict[str, Any]:
    opened, decision = review.opened, review.decision
    shown = opened.model_dump(
        mode="json",
        exclude_none=True,
        exclude={"type", "epoch", "job", "at", "step", "artefact", "opened_after", "deadline_seconds", "path"},
    )
    state = "open" if not review.over else "withdrawn" if decision is None else "decided"
    view = {"id": f"{ids.public(opened.job)}.{opened.step}", "job": ids.public(opened.job), "opened_at": opened.at, **shown, "state": state}
    view |= {
        "escalated": review.escalated,
        "said": [{"by": one.by, "verdict": one.verdict, "text": one.text} for one in review.said.values()],
    }
    if decision is not None:
        view["decision"] = {"verdict": decision.verdict, "text": decision.text, "by": list(decision.by), "at": decision.at}
    return view
