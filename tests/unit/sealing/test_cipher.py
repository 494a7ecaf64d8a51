"""A seal holds for one data key, topic and record's key; of cluster keys the first wraps and all unwrap; a file without any is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.base import RECORD_BYTES
from shared.errors import ConfigurationError, InvalidRecord
from shared.sealing.cipher import Cipher, ClusterKeys, id_of, new_key, written
from tests.support.sealing import keys_file

CIPHER = Cipher(new_key())
VALUES = st.binary(max_size=3000) | st.text(max_size=50).map(lambda text: text.encode() * 60)


@given(VALUES, st.none() | st.binary(max_size=20), st.booleans())
def test_what_is_sealed_opens_where_it_was_sealed_for(value: bytes, key: bytes | None, packs: bool) -> None:
    sealed = CIPHER.seal(value, "jobs", key, packs=packs)
    assert CIPHER.open(sealed, "jobs", key) == value
    assert len(sealed) <= len(value) + 29
    assert value not in sealed or len(value) < 4


@pytest.mark.parametrize("packs", [False, True])
def test_nothing_opens_that_was_changed_or_moved(packs: bool) -> None:
    sealed = CIPHER.seal(b"a prompt " * 200, "jobs", b"k", packs=packs)
    for place in (0, 1, 12, 13, len(sealed) // 2, len(sealed) - 1):
        spoilt = bytearray(sealed)
        spoilt[place] ^= 1
        with pytest.raises(InvalidRecord, match="seal"):
            CIPHER.open(bytes(spoilt), "jobs", b"k")
    for cut in (0, 1, 13, len(sealed) - 1):
        with pytest.raises(InvalidRecord, match="seal"):
            CIPHER.open(sealed[:cut], "jobs", b"k")
    for cipher, topic, key in (
        (CIPHER, "steps", b"k"),
        (CIPHER, "jobs", b"other"),
        (CIPHER, "jobs", None),
        (Cipher(new_key()), "jobs", b"k"),
    ):
        with pytest.raises(InvalidRecord, match="seal"):
            cipher.open(sealed, topic, key)


def test_text_is_packed_before_it_is_sealed_and_what_would_grow_is_not() -> None:
    text = b"the same words again and again, " * 1000
    assert len(CIPHER.seal(text, "t", None, packs=True)) < len(text) / 4
    noise = new_key() * 1 + bytes(range(256)) * 4
    assert CIPHER.open(CIPHER.seal(noise, "t", None, packs=True), "t", None) == noise
    most = b"x" * (RECORD_BYTES + 1)
    assert len(CIPHER.seal(most, "t", None, packs=True)) == len(most) + 29  # refused by its size, as it would be unsealed


def test_the_first_cluster_key_wraps_and_all_unwrap(tmp_path: Path) -> None:
    old, new, key = new_key(), new_key(), new_key()
    by_old = ClusterKeys(str(keys_file(tmp_path, old)))
    which, wrapped = by_old.wrap(key, "acme/1")
    assert which == id_of(old)
    file = keys_file(tmp_path, new, old)
    both = ClusterKeys(str(file))
    assert (both.unwrap(which, wrapped, "acme/1"), both.first, both.ids) == (key, id_of(new), (id_of(new), id_of(old)))
    with pytest.raises(InvalidRecord, match="seal"):
        both.unwrap(which, wrapped, "globex/1")  # another entry's
    assert ClusterKeys(str(keys_file(tmp_path, new, name="other"))).unwrap(which, wrapped, "acme/1") is None


def test_a_file_is_read_again_and_a_broken_one_leaves_what_was_known(tmp_path: Path) -> None:
    first, second = new_key(), new_key()
    file = keys_file(tmp_path, first)
    keys = ClusterKeys(str(file))
    keys_file(tmp_path, second, first)
    keys.refresh()
    assert keys.first == id_of(second)
    file.write_text("nonsense\n")
    with pytest.raises(ConfigurationError, match="line 1 of"):
        keys.refresh()
    assert keys.ids == (id_of(second), id_of(first))


@pytest.mark.parametrize("content", ["", "# nothing\n", "AAAA\n", "é\n", f"{written(bytes(32))[:-2]}\n"])
def test_a_file_that_holds_no_key_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigurationError) as refused:
        ClusterKeys(str(file))
    assert content.strip() == "" or content.strip() not in refused.value.message
    with pytest.raises(ConfigurationError, match="cannot be read"):
        ClusterKeys(str(tmp_path / "nowhere"))
