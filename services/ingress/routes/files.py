"""`/v1/files`: upload, list, look at, read, delete. What was uploaded is an entry and blobs; what a batch has made is rendered anew."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from services.ingress.dialects.openai import batches
from services.ingress.dialects.port import Dialect
from services.ingress.handlers import Door
from services.ingress.http.exchange import call_headers
from services.ingress.http.uploads import FILE_BYTES, PIECE_BYTES, Upload
from services.ingress.problems import Problem, Refused
from services.ingress.replies.register import Following, WaitKind
from services.ingress.routes.asking import ReaderStream, Routes, as_json, client_of, number_of, reader_of
from services.ingress.routes.batch_output import BatchOutput
from services.ingress.routes.telling import seen
from services.ingress.status.files import MOST_OF_TENANT
from shared.batches import KEPT_SECONDS
from shared.contracts.batch import BatchChanged, StoredFile
from shared.errors import TooLarge
from shared.service.known_problems import too_slow

_UPLOAD_SECONDS = 900.0
_MOST_LISTED = 10_000
_HELD_BYTES = 2 * PIECE_BYTES
"""Of an upload, or a download, in memory."""


def not_found(what: str, name: str) -> Refused:
    """404: unknown and another tenant's look alike."""
    return Refused(Problem(404, f"{what}_not_found", f"no such {what}: {name[:128]!r}", "id"))


def page(request: Request, found: list[dict[str, Any]], usual: int, most: int) -> bytes:
    """Of what was found, newest first, behind `?after=`, at most `?limit=`. Raises InvalidInput."""
    limit, after = number_of(request, "limit", usual, most), request.query_params.get("after")
    names = [one["id"] for one in found]
    first = names.index(after) + 1 if after in names else 0
    shown = found[first : first + limit]
    return batches.listed(shown, first + len(shown) < len(found))


class _FileRoutes:
    def __init__(self, door: Door, dialects: Mapping[str, Dialect]) -> None:
        self._door, self._files, self._dialects = door, door.files, dialects

    async def create(self, request: Request) -> Response:
        """One file of purpose batch, in a form; 413 above its bound."""
        door, (_, tenant), call = self._door, client_of(self._door, request), call_headers(request.scope)
        if (call.content_length or 0) > FILE_BYTES + PIECE_BYTES:
            raise TooLarge(f"a file has at most {FILE_BYTES} bytes")
        if call.content_encoding is not None:
            raise Refused(Problem(415, "unsupported_encoding", "files are sent as they are"))
        if not self._files.has_room(tenant):
            raise Refused(Problem(400, "file_limit_reached", f"a tenant keeps at most {MOST_OF_TENANT} files: delete some"))
        upload, pieces = Upload(request.receive, request.headers.get("content-type", "")), []
        with door.waiting(WaitKind.END, tenant, _UPLOAD_SECONDS) as reader:
            try:
                await door.open()
                await door.bodies.hold(reader, _HELD_BYTES)
                async for piece in upload.pieces():
                    door.stay()
                    if reader.over:
                        raise too_slow("the file did not arrive", _UPLOAD_SECONDS)
                    pieces.append(await door.kept(tenant, piece))
            finally:
                door.bodies.let_go(reader)
            file = self._file(tenant, upload, tuple(pieces))
            await self._files.put(file)
        return as_json(batches.file_object(file))

    def _file(self, tenant: str, upload: Upload, pieces: tuple[Any, ...]) -> StoredFile:
        """Raises Refused."""
        unknown = upload.fields.keys() - {"purpose"}
        if unknown:
            raise Refused(Problem(400, "unsupported_parameter", f"{min(unknown)[:64]} is not supported", min(unknown)[:64]))
        if upload.fields.get("purpose") != "batch":
            raise Refused(Problem(400, "invalid_purpose", "files are of purpose batch", "purpose"))
        now, name = self._door.clock.wall(), f"file-{self._door.submitter.new_id()[2:]}"
        filename = upload.filename or "file"
        return StoredFile(
            tenant=tenant, name=name, filename=filename, purpose="batch", size=upload.size, created_at=now, expires_at=now + KEPT_SECONDS,
            pieces=pieces,
        )  # fmt: skip

    async def list(self, request: Request) -> Response:
        """What was uploaded, and what batches have made."""
        _, tenant = client_of(self._door, request)
        purpose = request.query_params.get("purpose")
        found = [batches.file_object(file) for file in self._files.of(tenant)]
        for known in self._door.events.batches:
            if known.tenant == tenant:
                found += [batches.made_file(known, good, KEPT_SECONDS) for good in (True, False) if batches.has_file(known, good)]
        shown = [file for file in found if purpose in (None, file["purpose"])]
        return Response(page(request, shown, _MOST_LISTED, _MOST_LISTED), media_type="application/json")

    async def get(self, request: Request) -> Response:
        found = await self._found(request)
        if isinstance(found, StoredFile):
            return as_json(batches.file_object(found))
        return as_json(batches.made_file(*found, KEPT_SECONDS))

    async def content(self, request: Request) -> Response:
        """Its bytes."""
        door, found, (_, tenant) = self._door, await self._found(request), client_of(self._door, request)
        reader = reader_of(door, WaitKind.END, tenant)
        if isinstance(found, StoredFile):
            content = self._pieces(reader, found)
        else:
            known, good = found
            content = self._held(reader, BatchOutput(door, known, self._dialects[known.terms.endpoint]).stream(good))
        return ReaderStream(door, reader, content, {"content-type": "application/octet-stream"})

    async def _pieces(self, reader: Following, file: StoredFile) -> AsyncIterator[bytes]:
        await self._door.bodies.hold(reader, _HELD_BYTES)
        for piece in file.pieces:
            yield await self._door.blobs.fetch(file.tenant, piece)

    async def _held(self, reader: Following, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        await self._door.bodies.hold(reader, _HELD_BYTES)
        async for piece in content:
            yield piece

    async def delete(self, request: Request) -> Response:
        """Its entry; what a batch has made goes with the batch."""
        found = await self._found(request)
        if not isinstance(found, StoredFile):
            raise Refused(Problem(400, "unsupported", "what a batch has made is kept as long as the batch", "id"))
        await self._files.remove(found)
        return Response(batches.deleted(found.name), media_type="application/json")

    async def _found(self, request: Request) -> StoredFile | tuple[BatchChanged, bool]:
        """Raises Refused (404)."""
        (client, tenant), name = client_of(self._door, request), str(request.path_params["file"])
        made = batches.batch_of_file(name)
        if made is None:
            file = await seen(self._door, tenant, lambda: self._files.get(tenant, name))
            if file is not None and client.may_see(tenant):
                return file
        else:
            batch, good = made
            known = await seen(self._door, tenant, lambda: self._door.events.batches.get(tenant, batch))
            if known is not None and client.may_see(tenant) and batches.has_file(known, good):
                return known, good
        raise not_found("file", name)


def routes(door: Door, dialects: Mapping[str, Dialect]) -> Routes:
    """By path and method."""
    own = _FileRoutes(door, dialects)
    return {
        "/v1/files": {"GET": own.list, "POST": own.create},
        "/v1/files/{file}": {"GET": own.get, "DELETE": own.delete},
        "/v1/files/{file}/content": {"GET": own.content},
    }
