"""The tiny model: a well-formed GGUF file, the same for the same seed."""

from __future__ import annotations

import struct
from pathlib import Path

from infra.lab.ollama_build import tiny_model


def written(path: Path, seed: int) -> bytes:
    tiny_model.write(path, seed)
    return path.read_bytes()


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    """Two seeds are two models of one size, for tests of swapping; one seed is one model."""
    first = written(tmp_path / "a.gguf", 0)
    assert written(tmp_path / "b.gguf", 0) == first
    other = written(tmp_path / "c.gguf", 1)
    assert other != first
    assert len(other) == len(first)


def test_the_file_starts_as_the_format_says_and_holds_all_tensors(tmp_path: Path) -> None:
    """Magic, version 3, and as many bytes behind the header as its 21 tensors of 32-bit floats take."""
    data = written(tmp_path / "a.gguf", 0)
    magic, version, tensors, _ = struct.unpack_from("<4sIQQ", data)
    assert (magic, version, tensors) == (b"GGUF", 3, 3 + 9 * tiny_model.BLOCKS)
    width, wide, vocabulary = tiny_model.WIDTH, tiny_model.FEED_FORWARD, 406
    floats = 2 * vocabulary * width + width + tiny_model.BLOCKS * (2 * width + 4 * width * width + 3 * width * wide)
    assert 4 * floats < len(data) < 4 * floats + 20_000


def test_it_can_be_as_slow_as_a_large_one(tmp_path: Path) -> None:
    """The same blocks, again and again; and a text that does not end by itself."""
    tiny_model.write(tmp_path / "a.gguf", 0, repeats=3, ends=False)
    *_, tensors, _ = struct.unpack_from("<4sIQQ", (tmp_path / "a.gguf").read_bytes())
    assert tensors == 3 + 9 * 3 * tiny_model.BLOCKS
