"""The native launcher's promise about Redis: a real server that keeps its data and never evicts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from infra.native.paths import StackHome
from infra.native.ports import free_ports
from infra.native.redis import RedisServer

pytestmark = pytest.mark.redis


@pytest.fixture
def server(tmp_path: Path, redis_url: str) -> Iterator[RedisServer]:
    """One of our own; `redis_url` decides whether a Redis can be had at all."""
    one = RedisServer(StackHome(tmp_path), free_ports(1)[0], dies_with_parent=True)
    one.start()
    yield one
    one.stop()


def test_data_survives_a_restart(server: RedisServer) -> None:
    """What was written before `stop` is there after `start`."""
    with redis.Redis.from_url(server.url) as client:
        client.set("job", "kept")
    server.stop()
    assert not server.healthy()
    server.start()
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        assert client.get("job") == "kept"


def test_a_full_store_refuses_instead_of_evicting(server: RedisServer) -> None:
    """Job status is never dropped silently: the policy is noeviction."""
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        client.config_set("maxmemory", "1mb")
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.set("large", "x" * 2_000_000)
