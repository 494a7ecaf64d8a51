"""The log on a real Kafka cluster, by aiokafka. Settings and their reasons: `settings`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol, TypeVar
from weakref import WeakSet

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from shared.clock import Clock
from shared.kafka import settings
from shared.kafka.assignor import BalancedAssignor
from shared.kafka.client.aio_admin import AioAdmin
from shared.kafka.client.aio_closing import stop_admin, stop_consumer, stop_producer, thin_out
from shared.kafka.client.aio_connections import mend_connections
from shared.kafka.client.aio_consumer import AioConsumer
from shared.kafka.client.aio_errors import FOREIGN
from shared.kafka.client.aio_fetch import heed_fetches
from shared.kafka.client.aio_offsets import heed_offset_errors
from shared.kafka.client.aio_producer import AioProducer, start_producer
from shared.kafka.client.aio_rebalance import AioAssignor
from shared.kafka.client.aio_records import install
from shared.kafka.client.security import Security, denial, refusal
from shared.kafka.port import Assignor, Reset
from shared.kafka.settings import milliseconds
from shared.telemetry import logs

log = logs.get(__name__)

Compression = Literal["lz4"] | None


class _Startable(Protocol):
    async def start(self) -> None: ...


Client = TypeVar("Client", bound=_Startable)


async def _start(client: _Startable) -> None:
    await client.start()


class AioLog:
    """Implements `port.Log`. `servers` is Kafka's comma-separated list of bootstrap addresses."""

    def __init__(self, servers: str, clock: Clock, *, compression: Compression = "lz4", security: Security | None = None) -> None:
        self._servers = [server.strip() for server in servers.split(",")]
        self._clock = clock
        self._compression = compression
        self._security = security or Security()
        self._common = {"bootstrap_servers": self._servers, **self._security.options}
        self.trouble: str | None = None
        self._producers: WeakSet[AioProducer] = WeakSet()
        self._session_seconds: float | None = None
        """Of members of groups, once the brokers have said what they allow."""
        thin_out(clock)
        install()
        mend_connections()

    @property
    def unheard(self) -> bool:
        return any(producer.unheard for producer in self._producers)

    async def producer(self, *, client_id: str, acks: Literal["all", 1] = "all", linger_ms: int = 0) -> AioProducer:
        async def open_session() -> AIOKafkaProducer:
            return await self._connect(lambda: self._new_producer(client_id, acks), stop_producer, start_producer)

        session = await open_session()
        producer = AioProducer(session, open_session, self._clock, idempotent=acks == "all", linger_ms=linger_ms)
        self._producers.add(producer)
        return producer

    async def consumer(
        self,
        *,
        client_id: str,
        group: str | None = None,
        reset: Reset = "earliest",
        assignor: Assignor | None = None,
        fetch_max_wait_ms: int = 500,
        paused_max_wait_ms: int | None = None,
        max_partition_fetch_bytes: int = settings.PARTITION_FETCH_BYTES,
        committed_only: bool = False,
    ) -> AioConsumer:
        adapter = AioAssignor(assignor or BalancedAssignor())
        session = CONSUMER_OPTIONS["session_timeout_ms"] if group is None else milliseconds(await self._session())

        def create() -> AIOKafkaConsumer:
            return AIOKafkaConsumer(
                **self._common,
                client_id=client_id,
                group_id=group,
                auto_offset_reset=reset,
                partition_assignment_strategy=(adapter,),
                fetch_max_wait_ms=fetch_max_wait_ms,
                max_partition_fetch_bytes=max_partition_fetch_bytes,
                isolation_level="read_committed" if committed_only else "read_uncommitted",
                **{**CONSUMER_OPTIONS, "session_timeout_ms": session},
            )

        client = await self._connect(create, stop_consumer)
        heed_fetches(client)
        if group is not None:
            heed_offset_errors(client)
        consumer = AioConsumer(client, adapter, self._clock, waits_ms=(fetch_max_wait_ms, paused_max_wait_ms or fetch_max_wait_ms))
        consumer.on_denied = self._on_denied
        return consumer

    def _on_denied(self, error: BaseException) -> None:
        self.trouble = denial(error, self._security) or self.trouble

    async def admin(self) -> AioAdmin:
        def create() -> AIOKafkaAdminClient:
            return AIOKafkaAdminClient(**self._common, client_id="tutti-admin", request_timeout_ms=milliseconds(settings.REQUEST_SECONDS))

        return AioAdmin(await self._connect(create, stop_admin))

    async def _session(self) -> float:
        """Ours, or the shortest that every broker allows. Asked once a process."""
        if self._session_seconds is None:
            admin = await self.admin()
            try:
                self._session_seconds = max(settings.SESSION_SECONDS, await admin.shortest_session_seconds())
            finally:
                await admin.close()
            log.info("session_timeout", seconds=self._session_seconds)
        return self._session_seconds

    async def close(self) -> None:
        """Clients are closed by whoever opened them."""

    async def _connect(
        self, create: Callable[[], Client], stop: Callable[[Client], Awaitable[None]], start: Callable[[Client], Awaitable[None]] = _start
    ) -> Client:
        """A started client. Waits for the cluster however long it is away, with doubling pauses, until cancelled."""
        pause = settings.CONNECT_BACKOFF_SECONDS
        while True:
            client = create()
            try:
                await start(client)
                self.trouble = None
                return client
            except FOREIGN as error:
                await stop(client)
                self.trouble = denial(error, self._security) or await refusal(self._servers[0], self._security)
                reason = self.trouble or repr(error)
                log.warning("kafka_unreachable", servers=",".join(self._servers), error=reason, retry_seconds=pause)
            except BaseException:
                await stop(client)
                raise
            await self._clock.sleep(pause)
            pause = min(pause * 2, settings.CONNECT_BACKOFF_CAP_SECONDS)

    def _new_producer(self, client_id: str, acks: Literal["all", 1]) -> AIOKafkaProducer:
        seconds = settings.REQUEST_SECONDS if acks == "all" else settings.CHUNK_REQUEST_SECONDS
        return AIOKafkaProducer(
            **self._common,
            client_id=client_id,
            acks=acks,
            enable_idempotence=acks == "all",
            compression_type=self._compression,
            max_batch_size=settings.APPEND_BATCH_BYTES + settings.BATCH_SLACK_BYTES,
            max_request_size=settings.REQUEST_BYTES,
            linger_ms=0,
            request_timeout_ms=milliseconds(seconds),
            retry_backoff_ms=milliseconds(settings.RETRY_SECONDS),
            metadata_max_age_ms=milliseconds(settings.METADATA_SECONDS),
            connections_max_idle_ms=milliseconds(settings.IDLE_CONNECTION_SECONDS),
        )


CONSUMER_OPTIONS: dict[str, Any] = {
    "enable_auto_commit": False,
    "session_timeout_ms": milliseconds(settings.SESSION_SECONDS),
    "heartbeat_interval_ms": milliseconds(settings.HEARTBEAT_SECONDS),
    "rebalance_timeout_ms": milliseconds(settings.REBALANCE_SECONDS),
    "max_poll_interval_ms": milliseconds(settings.POLL_LIMIT_SECONDS),
    "fetch_max_bytes": settings.FETCH_BYTES,
    "request_timeout_ms": milliseconds(settings.REQUEST_SECONDS),
    "retry_backoff_ms": milliseconds(settings.RETRY_SECONDS),
    "metadata_max_age_ms": milliseconds(settings.METADATA_SECONDS),
    "connections_max_idle_ms": milliseconds(settings.IDLE_CONNECTION_SECONDS),
}
"""What every consumer has in common; the platform-assumption tests start from the same."""
