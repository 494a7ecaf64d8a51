"""Uploads: a form of `multipart/form-data` with one file, taken piece by piece, so that of a hundred megabytes few are in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from services.ingress.http.exchange import Receive
from services.ingress.problems import ClientGone, Problem, Refused
from shared.errors import TooLarge
from shared.service.known_problems import BODY_SECONDS, too_slow

FILE_BYTES = 100 * 1024 * 1024
PIECE_BYTES = 4 * 1024 * 1024
_FIELD_BYTES, _MOST_FIELDS = 4_096, 16
_FED_BYTES = 64 * 1024
_BESIDE_BYTES = 64 * 1024
"""Of a form besides its file."""


class Upload:
    """One form. `pieces` is to be exhausted; then `fields` and `filename` are there."""

    def __init__(self, receive: Receive, content_type: str) -> None:
        """Raises Refused (415) for any other content type."""
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise Refused(Problem(415, "unsupported_media_type", "a file is sent as multipart/form-data"))
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size = 0
        self._receive = receive
        self._parser = MultipartParser(options[b"boundary"], self._callbacks())
        self._header, self._value = bytearray(), bytearray()
        self._field: bytes | None = None
        """Name of the part; None: the file's, or nothing that is wanted."""
        self._text, self._file, self._in_file = bytearray(), bytearray(), False
        self._ended = False

    async def pieces(self) -> AsyncIterator[bytes]:
        """Of the file, in order. Raises Refused (400, 408), TooLarge, ClientGone."""
        total = 0
        while True:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    message = await self._receive()
            except TimeoutError:
                raise too_slow("nothing arrived", BODY_SECONDS) from None
            if message["type"] == "http.disconnect":
                raise ClientGone
            body: bytes = message.get("body", b"")
            total += len(body)
            if total > FILE_BYTES + _BESIDE_BYTES:
                raise TooLarge(f"a file has at most {FILE_BYTES} bytes")
            for start in range(0, len(body), _FED_BYTES):
                self._feed(body[start : start + _FED_BYTES])
                if len(self._file) >= PIECE_BYTES:
                    yield self._taken()
            if not message.get("more_body", False):
                break
        if not self._ended or self.filename is None:
            raise Refused(Problem(400, "invalid_form", "the form has no whole part `file` with a filename", "file"))
        if self._file:
            yield self._taken()

    def _taken(self) -> bytes:
        piece, self._file = bytes(self._file), bytearray()
        return piece

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError:
            raise Refused(Problem(400, "invalid_form", "the body is no multipart/form-data")) from None

    def _callbacks(self) -> Any:
        return {
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._on_header,
            "on_part_data": self._on_data,
            "on_part_end": self._on_part,
            "on_end": self._on_end,
        }

    def _on_header(self) -> None:
        name, value = bytes(self._header).lower(), bytes(self._value)
        self._header.clear()
        self._value.clear()
        if name != b"content-disposition":
            return
        _, options = parse_options_header(value)
        self._field = options.get(b"name")
        if self._field == b"file" and self.filename is None and b"filename" in options:
            self.filename, self._in_file = options[b"filename"].decode(errors="replace")[:255], True

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._file += data[start:end]
            self.size += end - start
        elif len(self._text) + end - start <= _FIELD_BYTES:
            self._text += data[start:end]
        else:
            raise Refused(Problem(400, "invalid_form", f"a field has at most {_FIELD_BYTES} bytes"))

    def _on_part(self) -> None:
        if not self._in_file and self._field is not None:
            if len(self.fields) >= _MOST_FIELDS:
                raise Refused(Problem(400, "invalid_form", f"a form has at most {_MOST_FIELDS} fields"))
            self.fields[self._field.decode(errors="replace")] = self._text.decode(errors="replace")
        self._text.clear()
        self._field, self._in_file = None, False

    def _on_end(self) -> None:
        self._ended = True
