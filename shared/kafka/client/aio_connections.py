"""A connection that is closed while it is written to. uvloop says so by a RuntimeError, which aiokafka does not take for a lost connection:
it ended the routine that fetches, for good. *Trace:* a broker stops between the look whether a connection is there and the write; the
consumer stands still until the watchdog gives up its process.
"""

from __future__ import annotations

from typing import Any

from aiokafka import conn
from aiokafka import errors as kafka


class Connection(conn.AIOKafkaConnection):  # type: ignore[misc, unused-ignore]
    """Says of a closed transport what it says of a broken one."""

    def send(self, request: Any, expect_response: bool = True) -> Any:
        try:
            return super().send(request, expect_response)  # type: ignore[no-untyped-call, unused-ignore]
        except kafka.KafkaError:
            raise
        except RuntimeError as error:
            self.close(reason=conn.CloseReason.CONNECTION_BROKEN)  # type: ignore[no-untyped-call, unused-ignore]
            raise kafka.KafkaConnectionError(f"Connection at {self.host}:{self.port} is closed") from error


def mend_connections() -> None:
    """From now on aiokafka's clients have these. Harmless when repeated."""
    inside: Any = conn
    inside.AIOKafkaConnection = Connection
