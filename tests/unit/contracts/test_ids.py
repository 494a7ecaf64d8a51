"""Ids: whose they are, where they live, and which nobody but tutti may give."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from shared.contracts import ids
from shared.contracts.base import JobId, PublicId
from shared.murmur import Spelling, murmur2
from shared.topics import partition_of

PUBLIC = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", fullmatch=True)
TENANT = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
SPELLING = Spelling("0123456789abcdefghijklmnopqrstuv")


@given(st.binary(max_size=80), st.integers(1, 100))
def test_keys_go_where_kafkas_own_partitioner_puts_them(key: bytes, partitions: int) -> None:
    """Whoever writes a keyed record, it lies on the same partition."""
    everything = list(range(partitions))
    assert partition_of(key, partitions) == DefaultPartitioner()(key, everything, everything)


@pytest.mark.parametrize(
    ("key", "hashed"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536), (b"abc", 479470107)],
)
def test_murmur2_is_kafkas(key: bytes, hashed: int) -> None:
    """The values of Kafka's own test (UtilsTest.testMurmur2)."""
    assert murmur2(key) == hashed & 0xFFFF_FFFF


@given(TENANT, TENANT, PUBLIC, PUBLIC)
def test_two_tenants_never_share_an_id(one: str, other: str, mine: str, theirs: str) -> None:
    """However they choose their names and ids; what tutti made has no tenant in it."""
    if ids.is_reserved(mine) or ids.is_reserved(theirs):
        return
    assert (ids.qualified(one, mine) == ids.qualified(other, theirs)) == ((one, mine) == (other, theirs))


@given(TENANT, PUBLIC, st.integers(1, 64))
def test_an_id_keeps_its_public_name_and_its_home(tenant: str, job: str, homes: int) -> None:
    """People and Kafka producers know the public id: it alone decides where the job lives."""
    inside = ids.qualified(tenant, job)
    assert TypeAdapter(JobId).validate_python(inside) == inside
    assert ids.public(inside) == ids.public(job) == job
    assert ids.home_of(inside, homes) == ids.home_of(job, homes) == partition_of(job.encode(), homes)


@given(TENANT, PUBLIC)
def test_nobody_can_say_a_qualified_id(tenant: str, job: str) -> None:
    """What a caller gives holds no slash."""
    with pytest.raises(ValidationError):
        TypeAdapter(PublicId).validate_python(f"{tenant}/{job}")


@pytest.mark.parametrize("form", ["j_1", "j_01JDAAAAAAAAAAAAAAAAAAAAAA", "k_x", "s_nightly", "t/j_1"])
def test_tuttis_forms_are_reserved(form: str) -> None:
    assert ids.is_reserved(form)
    assert not ids.is_reserved("x" + ids.public(form))


@given(
    st.text("abcdefgh", min_size=2, max_size=2),
    st.integers(0, 2**128),
    st.integers(1, 24).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))),
)
def test_an_ending_leads_home(prefix: str, number: int, where: tuple[int, int]) -> None:
    """What stands before it says the number; the whole lies where it was wanted."""
    wanted, homes = where
    job = SPELLING.spell(prefix, number, wanted, homes)
    assert job[:2] == prefix
    assert len(job) == 28
    assert int(job[2:24], 32) == number >> 10 & (1 << 110) - 1
    assert ids.home_of(job, homes) == wanted
