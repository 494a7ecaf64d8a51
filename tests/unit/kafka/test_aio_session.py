"""The session timeout of groups: ours where the brokers allow it, else the shortest that they allow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import ClusterAuthorizationFailedError

from shared.clock import SystemClock
from shared.kafka.client.aio import AioLog
from shared.kafka.client.aio_admin import AioAdmin
from shared.kafka.settings import SESSION_SECONDS


class Told:
    """An admin client that says so of each broker's `group.min.session.timeout.ms`."""

    def __init__(self, *told: str | None) -> None:
        self._told = told
        brokers = [SimpleNamespace(nodeId=number) for number in range(len(told))]
        self._client = SimpleNamespace(cluster=SimpleNamespace(brokers=lambda: brokers), close=self.close)
        self.asked = 0

    async def describe_configs(self, wanted: list[Any]) -> list[Any]:
        self.asked += 1
        if None in self._told:
            raise ClusterAuthorizationFailedError
        names = [name for resource in wanted for name in resource.configs]
        return [SimpleNamespace(resources=[(0, "", 4, "1", [(n, v, True, True, False)])]) for n, v in zip(names, self._told, strict=True)]

    async def close(self) -> None:
        return None


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        pytest.param(("1000",), SESSION_SECONDS, id="native"),
        pytest.param(("6000",), 6.0, id="Kafka's default"),
        pytest.param(("1000", "10000", "6000"), 10.0, id="the strictest of several"),
        pytest.param((None,), 6.0, id="a broker that does not tell"),
    ],
)
async def test_what_the_brokers_allow(told: tuple[str | None, ...], seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked once a process, however many consumers it opens."""
    client: Any = Told(*told)
    log = AioLog("nowhere:1", SystemClock())

    async def admin() -> AioAdmin:
        return AioAdmin(client)

    monkeypatch.setattr(log, "admin", admin)
    assert [await log._session() for _ in range(3)] == [seconds] * 3
    assert client.asked == 1
