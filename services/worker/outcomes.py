"""Outcomes as records: each goes to the job's home partition, keyed by its job, with the trace it came with."""

from __future__ import annotations

from collections.abc import Mapping

from shared.contracts import headers
from shared.contracts.base import ClaimId, NodeId
from shared.contracts.outcome import ClaimsRenewed, StepClaimed, StepFailed, StepReleased, StepSucceeded
from shared.contracts.step import Step
from shared.kafka.port import Message

MOST_CLAIMS_A_RECORD = 1_000

Written = StepClaimed | StepSucceeded | StepFailed | StepReleased


class OutcomeWriter:
    """Makes records for one `outcomes` topic."""

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def message(self, outcome: Written, step: Step, trace: str | None) -> Message:
        """The record."""
        return Message(self._topic, outcome.to_bytes(), step.job.encode(), step.home, headers.envelope(outcome.type, trace))

    def renewals(self, node: NodeId, mailbox: int, claims: Mapping[int, tuple[ClaimId, ...]]) -> list[Message]:
        """One record a home for all its claims (cut only beyond a thousand)."""
        return [
            Message(
                self._topic,
                ClaimsRenewed(node=node, mailbox=mailbox, claims=of_home[start : start + MOST_CLAIMS_A_RECORD]).to_bytes(),
                node.encode(),
                home,
                headers.envelope("renewed"),
            )
            for home, of_home in claims.items()
            for start in range(0, len(of_home), MOST_CLAIMS_A_RECORD)
        ]
