"""What a group has committed, and the error of a broker that cannot tell. aiokafka reads the errors of single partitions: a coordinator
that has just started and not read the group yet answers with an error for all and without a partition, which is taken for a group that has
never committed. *Trace:* after a broker's restart every member began at the beginning.
"""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import errors as kafka
from aiokafka.protocol.commit import OffsetFetchRequest


def heed_offset_errors(consumer: AIOKafkaConsumer) -> None:
    """From now on its coordinator raises them; it asks again after those that pass."""
    coordinator: Any = consumer._coordinator  # noqa: SLF001
    send = coordinator._send_req  # noqa: SLF001

    async def heeded(request: Any) -> Any:
        response = await send(request)
        if isinstance(request, OffsetFetchRequest):
            try:
                check_offsets(response)
            except (kafka.NotCoordinatorForGroupError, kafka.GroupCoordinatorNotAvailableError):
                coordinator.coordinator_dead()
                raise
        return response

    coordinator._send_req = heeded  # noqa: SLF001


def check_offsets(response: Any) -> None:
    """Raises the error that an answer to an OffsetFetch has as a whole."""
    code = getattr(response, "error_code", 0)
    if code:
        raise kafka.for_code(code)
