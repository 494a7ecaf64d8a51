"""Writes GGUF version 3, the file format of llama.cpp's models: as much of it as the tiny model needs.

Layout (ggml's docs/gguf.md): magic, version, counts; key-value pairs; a description of each tensor; the tensors, each padded to 32 bytes.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_VERSION = 3
_ALIGNMENT = 32
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_F32_TENSOR = 0

Value = bool | int | float | str | Sequence[str] | Sequence[float] | Sequence[int]


@dataclass(frozen=True, slots=True)
class Tensor:
    """32-bit floats, last dimension fastest (rows, columns)."""

    name: str
    shape: tuple[int, ...]
    data: array[float]


def write(path: Path, values: Mapping[str, Value], tensors: Sequence[Tensor]) -> None:
    """Write the file at once; an interrupted run leaves none."""
    head = bytearray(b"GGUF" + struct.pack("<IQQ", _VERSION, len(tensors), len(values)))
    for key, value in values.items():
        head += _string(key) + _typed(value)
    offset = 0
    for tensor in tensors:
        dimensions = tensor.shape[::-1]  # GGUF names the fastest first
        head += _string(tensor.name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, _F32_TENSOR, offset)
        offset += _aligned(4 * len(tensor.data))
    body = b"".join(_padded(tensor.data.tobytes()) for tensor in tensors)
    draft = path.with_suffix(".new")
    draft.write_bytes(_padded(bytes(head)) + body)
    draft.replace(path)


def _typed(value: Value) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    return struct.pack("<I", _ARRAY) + _elements(value)


def _elements(items: Sequence[str] | Sequence[float] | Sequence[int]) -> bytes:
    """Of one kind, told by the first."""
    count = len(items)
    if isinstance(items[0], str):
        return struct.pack("<IQ", _STRING, count) + b"".join(_string(str(item)) for item in items)
    if isinstance(items[0], float):
        return struct.pack(f"<IQ{count}f", _FLOAT32, count, *items)
    return struct.pack(f"<IQ{count}i", _INT32, count, *items)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _padded(data: bytes) -> bytes:
    return data.ljust(_aligned(len(data)), b"\0")
