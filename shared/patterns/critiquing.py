"""Critiquing: how a pattern has texts judged without a model: a step of the critics, whose answer is a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shared.contracts.blob import BlobRef
from shared.contracts.chat import CRITIQUES, Operation
from shared.contracts.critique import CheckSet, Critique
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import InputRef
from shared.contracts.step import StepRequest
from shared.contracts.verdict import CritiqueVerdict
from shared.framing import framed
from shared.patterns.context import Context, StepError

_MOST_TEXTS = 4_000
_MOST_SAID = 16


def found(verdict: CritiqueVerdict) -> str:
    """Names and numbers, without a text: may end up in logs."""
    return ", ".join(f"{check} ({count})" for check, count in sorted(verdict.counts.items()))


def said(verdicts: Iterable[CritiqueVerdict]) -> str:
    """What is wrong, as a list for the text's author; as data, since it may quote the text."""
    says = dict.fromkeys(each.says for verdict in verdicts for each in verdict.findings if each.says)
    return framed("faults", "\n".join(f"- {one}" for one in list(says)[:_MOST_SAID]))


async def critiqued(
    ctx: Context,
    checks: CheckSet,
    texts: Sequence[str],
    documents: Sequence[str] = (),
    *,
    answer: BlobRef | None = None,
    input_ref: InputRef | None = None,
) -> CritiqueVerdict:
    """What is found in these texts (of all but the first only what has a place), or in those that lie in blobs (`Critique` says which).

    Raises StepError: `unchecked` where no critic has answered in time, `too_large`.
    """
    if len(texts) > _MOST_TEXTS or len(documents) > 1_000:
        raise StepError(Failure(kind=FailureKind.TOO_LARGE, message=f"at most {_MOST_TEXTS} texts are judged at once"))
    asked = StepRequest(
        agent="critique",
        capability=CRITIQUES,
        operation=Operation.CRITIQUE,
        texts=tuple(texts),
        critique=Critique(checks=checks, documents=tuple(documents), answer=answer),
        input_ref=input_ref,
    )
    told = await ctx.ask(asked)
    if told.verdict is None:
        raise StepError(Failure(kind=FailureKind.INVALID_OUTPUT, message="a critic has answered without a verdict"))
    return told.verdict
