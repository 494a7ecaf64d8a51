"""The store on MongoDB, or on what speaks its protocol: upserts by id, which are unique, in batches; expiry by TTL indexes.

Whatever goes wrong, also an answer that is nonsense, is StoreAway, and everything may be written again. Only what a document holds may be
refused for good; then it alone is given up, and counted.
"""

from __future__ import annotations

import asyncio
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Collection, Sequence
from typing import Any, TypeVar

from bson import encode
from bson.errors import BSONError
from pymongo import AsyncMongoClient, IndexModel, UpdateOne
from pymongo.errors import BulkWriteError, ConfigurationError, InvalidURI

from services.sink.port import ACTS, AUDIT, LETTERS, NODES, OF_TENANTS, TALKS, TOTALS, USAGE, Begun, Document, JobLife, Sum, Upsert, Writes
from shared.audit import BLOCK, GENESIS
from shared.errors import ConfigurationError as WrongSettings
from shared.errors import StoreAway
from shared.telemetry import logs, metrics

log = logs.get(__name__)

T = TypeVar("T")

_AWAY_MS = 2_000
"""Nobody who can write answers for so long: it is away."""
_REFUSALS = frozenset({2, 9, 14, 15, 22, 28, 40, 52, 54, 55, 56, 57, 10334, 17280, 17419, 17420})
"""Error codes that speak of the document, not of the server."""
_DUPLICATE = 11000
_RACES = 5
_KNOWN_SUMS = 20_000
_UNENCODABLE = (BSONError, OverflowError, UnicodeError)
_EXPIRE = IndexModel([("expires_at", 1)], expireAfterSeconds=0)
_NEWEST = [("at", -1), ("_id", -1)]
_INDEXES = {
    USAGE: [IndexModel([("home", 1), ("job", 1)]), IndexModel([("tenant", 1), *_NEWEST]), IndexModel(_NEWEST), _EXPIRE],
    TOTALS: [IndexModel([("day", 1), ("of", 1), ("tenant", 1)]), IndexModel([("conversation", 1)], sparse=True), _EXPIRE],
    AUDIT: [IndexModel([("home", 1), ("block", 1)], unique=True), IndexModel([("to_ms", -1)]), _EXPIRE],
    NODES: [IndexModel([("node", 1), ("to_ms", -1)]), _EXPIRE],
    TALKS: [IndexModel([("tenant", 1), *_NEWEST]), IndexModel(_NEWEST), _EXPIRE],
    LETTERS: [IndexModel([("at", -1)]), _EXPIRE],
    ACTS: [IndexModel([("at", -1)]), _EXPIRE],
}


def _client(url: str, timeout_seconds: float) -> AsyncMongoClient[Document]:
    """TLS: `mongodb://…/?tls=true&tlsCAFile=/path/of/authorities.pem`."""
    return AsyncMongoClient(
        url,
        appname="tutti-sink",
        serverSelectionTimeoutMS=_AWAY_MS,
        connectTimeoutMS=_AWAY_MS,
        socketTimeoutMS=int(1_000 * timeout_seconds),
        maxPoolSize=16,
        retryWrites=False,  # every write is made again by us
        w="majority",
        journal=True,
        tz_aware=True,
    )


class MongoStore:
    """`port.Store`. `url` may hold a password and is never shown."""

    def __init__(self, url: str, database: str, timeout_seconds: float) -> None:
        """Raises ConfigurationError."""
        self._timeout = timeout_seconds
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # an option that is passed over may be the one that asks for TLS
                self._client = _client(url, timeout_seconds)
        except OSError as error:
            raise WrongSettings(f"TUTTI_SINK__STORE names a file that cannot be used: {error.strerror or 'no certificate'}") from None
        except (InvalidURI, ConfigurationError, ValueError, TypeError, UserWarning):
            raise WrongSettings("TUTTI_SINK__STORE is no address of a MongoDB, as mongodb://127.0.0.1:27017") from None
        self._database = self._client[database]
        self._reached: OrderedDict[str, int] = OrderedDict()
        """Sum → offset up to which it is added; of those that this sink writes."""

    async def prepare(self) -> None:
        for name, indexes in _INDEXES.items():
            await self._call(self._database[name].create_indexes(indexes))

    async def ping(self) -> None:
        await self._call(self._client.admin.command("ping"))

    async def begun(self, home: str, offset: int) -> Begun:
        where = {"home": home, "block": {"$lte": offset // BLOCK}}
        for block in await self.find(AUDIT, where, order=[("block", -1)], limit=2):
            below = [entry for entry in block["entries"].values() if entry["offset"] < offset]
            if below:
                last = max(below, key=lambda entry: int(entry["offset"]))
                return Begun(last["epoch"], last["chain"])
        return Begun(None, GENESIS)

    async def lives(self, home: str, jobs: Collection[str]) -> list[tuple[str, JobLife]]:
        where = {"home": home, "job": {"$in": list(jobs)}}
        found = await self.find(USAGE, where, order=[("job", 1)], limit=0, fields=("job", "life", "tenant", "settled", "s", "conversation"))
        return [_life(row) for row in found]

    async def write(self, writes: Writes) -> int:
        by_collection: dict[str, list[Upsert]] = defaultdict(list)
        for upsert in writes.upserts:
            by_collection[upsert.collection].append(upsert)
        refused = await asyncio.gather(*(self._upsert(name, upserts) for name, upserts in by_collection.items()))
        return sum(refused) + await self._add(writes.sums)

    async def find(
        self, collection: str, where: Document, *, order: Sequence[tuple[str, int]], limit: int, fields: Sequence[str] = ()
    ) -> list[Document]:
        shown: dict[str, Any] = {"_id": False, **dict.fromkeys(fields, True)}
        cursor = self._database[collection].find(where, shown).sort(list(order)).limit(limit)
        return await self._call(cursor.to_list())

    async def erase(self, tenant: str, before: float) -> int:
        theirs = {"tenant": tenant, "at": {"$lt": before}}
        done = [await self._call(self._database[name].delete_many(theirs)) for name in OF_TENANTS]
        return sum(one.deleted_count for one in done)

    async def homes(self) -> list[str]:
        found = await self._call(self._database[AUDIT].distinct("home"))
        return sorted(map(str, found))

    async def close(self) -> None:
        await self._client.close()

    async def _call(self, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                return await call
        except BulkWriteError:
            raise
        except Exception as error:
            metrics.SINK_STORE_ERRORS.inc()
            raise StoreAway(f"the store does not answer ({type(error).__name__})") from error

    async def _upsert(self, name: str, upserts: Sequence[Upsert]) -> int:
        operations = [_operation(upsert) for upsert in upserts]
        left = [operation for operation in operations if operation is not None]
        refused = len(operations) - len(left)
        for _ in range(_RACES):
            errors = await self._bulk(name, left)
            again = [left[number] for number, code in errors if code == _DUPLICATE]  # two sinks have inserted it at once
            refused += len(errors) - len(again)
            if not again:
                return refused
            left = again
        raise StoreAway("the store calls an id taken, and does not find it")

    async def _bulk(self, name: str, operations: Sequence[UpdateOne]) -> list[tuple[int, int]]:
        """(number of the operation, code) of those that were refused for what they hold, or whose id was taken. Raises StoreAway."""
        if not operations:
            return []
        try:
            await self._call(self._database[name].bulk_write(operations, ordered=False))
        except BulkWriteError as error:
            found = [(int(one["index"]), int(one.get("code", 0))) for one in error.details.get("writeErrors", ())]
            if not found or error.details.get("writeConcernErrors"):
                raise StoreAway("the store does not keep what it is given") from None
            for _, code in found:
                if code != _DUPLICATE and code not in _REFUSALS:
                    metrics.SINK_STORE_ERRORS.inc()
                    raise StoreAway(f"the store refuses to write (code {code})") from None
                if code != _DUPLICATE:
                    log.warning("document_refused", collection=name, code=code)
            return found
        return []

    async def _add(self, sums: Sequence[Sum]) -> int:
        """Each of these, if none of its amounts is in it yet; what another sink or an earlier try has added is left out."""
        left = list(sums)
        for _ in range(_RACES):
            await self._look_up([one.id for one in left])
            wanted = [(one, reached) for one in left if one.amounts[-1].offset > (reached := self._reached.get(one.id, -1))]
            for one, _ in wanted:
                self._reached.pop(one.id)  # not known until it is acknowledged
            errors = await self._bulk(TOTALS, [_addition(one, reached) for one, reached in wanted])
            taken = {number for number, code in errors if code == _DUPLICATE}
            failed = {number for number, _ in errors}
            for number, (one, _) in enumerate(wanted):
                if number not in failed:
                    self._reached[one.id] = one.amounts[-1].offset
            while len(self._reached) > _KNOWN_SUMS:
                self._reached.popitem(last=False)
            left = [wanted[number][0] for number in sorted(taken)]
            if not left:
                return len(failed) - len(taken)
        raise StoreAway("sums change while they are added to")

    async def _look_up(self, sums: Sequence[str]) -> None:
        unknown = [id_ for id_ in sums if id_ not in self._reached]
        if unknown:
            cursor = self._database[TOTALS].find({"_id": {"$in": unknown}}, {"reached": True})
            found = {row["_id"]: row["reached"] for row in await self._call(cursor.to_list())}
            self._reached.update({id_: found.get(id_, -1) for id_ in unknown})


def _life(row: Document) -> tuple[str, JobLife]:
    steps = dict(_steps(row.get("s", {})))
    return row["job"], JobLife(row["life"], row.get("tenant"), row.get("settled"), steps, row.get("conversation"))


def _steps(rows: Document) -> list[tuple[str, tuple[str, str]]]:
    return [(step, (row["agent"], row["model"])) for step, row in rows.items() if "agent" in row and "model" in row]


def _operation(upsert: Upsert) -> UpdateOne | None:
    parts = {"$set": upsert.fields, "$min": upsert.least, "$max": upsert.most}
    update = {name: values for name, values in parts.items() if values}
    try:
        encode(update)
    except _UNENCODABLE as error:
        log.warning("document_refused", collection=upsert.collection, code=type(error).__name__)
        return None
    return UpdateOne({"_id": upsert.id}, update, upsert=True)


def _addition(one: Sum, reached: int) -> UpdateOne:
    """Taken only where the sum is as far as `reached`: else its id is taken."""
    added: dict[str, int] = defaultdict(int)
    for amount in one.amounts:
        if amount.offset > reached:
            for name, value in amount.values.items():
                added[name] += value
    fields = {**one.fields, "reached": one.amounts[-1].offset, "expires_at": one.expires_at}
    return UpdateOne({"_id": one.id, "reached": reached}, {"$set": fields, "$inc": dict(added)}, upsert=True)


class NoStore:
    """Nothing is stored, and nothing known."""

    async def prepare(self) -> None:
        return None

    ping = close = prepare

    async def begun(self, home: str, offset: int) -> Begun:
        return Begun(None, GENESIS)

    async def lives(self, home: str, jobs: Collection[str]) -> list[tuple[str, JobLife]]:
        return []

    async def write(self, writes: Writes) -> int:
        return 0

    async def find(
        self, collection: str, where: Document, *, order: Sequence[tuple[str, int]], limit: int, fields: Sequence[str] = ()
    ) -> list[Document]:
        raise StoreAway("no store is configured (TUTTI_SINK__STORE)")

    async def erase(self, tenant: str, before: float) -> int:
        return 0

    async def homes(self) -> list[str]:
        return []
