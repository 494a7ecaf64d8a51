"""StoredFiles: what tenants have uploaded, as entries of the topic `files`, which every instance reads whole; the bytes lie in blobs.

An entry goes when its file is deleted, or when its blobs may be gone: whoever sees that first removes it, for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shared.clock import Clock
from shared.contracts.batch import StoredFile
from shared.contracts.headers import envelope
from shared.errors import Overloaded
from shared.kafka.port import Message, Record, TopicPartition
from shared.processing.folding import fold_each
from shared.processing.outbox import Outbox
from shared.processing.tail import Tail
from shared.service import Environment

MOST, MOST_OF_TENANT = 20_000, 500
_REMOVED_AT_ONCE = 100


class StoredFiles:
    """`tail` feeds it."""

    def __init__(self, environment: Environment, outbox: Outbox) -> None:
        self._clock: Clock = environment.clock
        self._outbox, self._topic = outbox, environment.topics.files
        self._files: dict[str, StoredFile] = {}
        name, place = f"tutti-ingress-files-{environment.instance}", TopicPartition(self._topic, 0)
        self.tail = Tail(environment.log, environment.clock, [place], client_id=name, handle=self._on_records)

    def of(self, tenant: str) -> Iterator[StoredFile]:
        """The newest first."""
        return reversed([file for file in self._files.values() if file.tenant == tenant])

    def get(self, tenant: str, name: str) -> StoredFile | None:
        file = self._files.get(f"{tenant}/{name}")
        return file if file is not None and file.expires_at > self._clock.wall() else None

    def has_room(self, tenant: str) -> bool:
        """Whether the tenant may have one more; as far as this instance has read."""
        return len(self._files) < MOST and sum(file.tenant == tenant for file in self._files.values()) < MOST_OF_TENANT

    async def put(self, file: StoredFile) -> None:
        """Returns when Kafka has it. Raises LogError, Overloaded."""
        await self._outbox.send(self._message(file, file.to_bytes()))
        self._files[f"{file.tenant}/{file.name}"] = file

    async def remove(self, file: StoredFile) -> None:
        """The same."""
        await self._outbox.send(self._message(file, None))
        self._files.pop(f"{file.tenant}/{file.name}", None)

    def sweep(self) -> None:
        """Entries of which the bytes may be gone."""
        now = self._clock.wall()
        for file in [file for file in self._files.values() if file.expires_at <= now][:_REMOVED_AT_ONCE]:
            try:
                self._outbox.offer(self._message(file, None))
            except Overloaded:
                return
            self._files.pop(f"{file.tenant}/{file.name}")

    def _message(self, file: StoredFile, value: bytes | None) -> Message:
        return Message(self._topic, value, f"{file.tenant}/{file.name}".encode(), 0, envelope(file.type))

    def _on_records(self, _: TopicPartition, records: Sequence[Record]) -> None:
        fold_each("ingress", records, self._on_record)

    def _on_record(self, record: Record) -> None:
        """Raises ValueError when the entry is none: the one before stands."""
        key = (record.key or b"").decode(errors="replace")
        if record.value is None:
            self._files.pop(key, None)
            return
        file = StoredFile.model_validate_json(record.value)
        if key == f"{file.tenant}/{file.name}" and (key in self._files or len(self._files) < MOST):
            self._files[key] = file
