"""BatchRow: a line of a batch that is a job, as it lies in a block."""

from __future__ import annotations

from shared.contracts.base import Contract, JsonValue, ModelName
from shared.contracts.batch import CustomId
from shared.contracts.job import HeldJob


class BatchRow(Contract):
    """One JSON text a line of the block. `job`: with its id, and whose line it is; the rest is for whoever tells its answer: its caller's
    name for it, the model as he spells it, and what his answer is to look like.
    """

    custom_id: CustomId
    model: ModelName
    wishes: JsonValue = None
    job: HeldJob

    def to_bytes(self) -> bytes:
        """The job in it as its record has it."""
        return b'%b,"job":%b}' % (self.encoded(exclude={"job"})[:-1], self.job.record())
