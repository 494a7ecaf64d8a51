"""Work of a router that concerns no step fails, for a reason nobody expected (simulated; the failures are planted)."""

from __future__ import annotations

from typing import Any

import pytest

from services.router.fairness import WaitingSteps
from shared.contracts.base import CLASSES
from shared.contracts.outcome import StepRouted
from tests.support.routing import step
from tests.support.routing_cluster import Cluster, simulated


@pytest.mark.parametrize(("owner", "name"), [(WaitingSteps, "drain"), (WaitingSteps, "remove"), (WaitingSteps, "ages")])
def test_work_that_concerns_no_step_ends_no_router(owner: type, name: str) -> None:
    """It fails for a while: readiness says so, and when it is over all steps are routed."""

    @simulated
    async def scenario(it: Cluster) -> None:
        service: Any = it.router()
        it.node("n1", 1)
        await it.clock.sleep(5.0)
        with pytest.MonkeyPatch.context() as patch:

            def fails(*_: Any) -> Any:
                raise OverflowError

            patch.setattr(owner, name, fails)
            for number in range(8):
                it.ask(step(id=f"{number:032x}"), priority_class=CLASSES[number % 3])
            it.node("n2", 2)
            await it.clock.sleep(20.0)
            assert [reason for reason in service.readiness().reasons if "fails again and again" in reason]
        await it.until(lambda: len({routed.step for routed in it.outcomes(StepRouted)}) == 8)
        await it.clock.sleep(5.0)
        assert service.readiness().ready

    scenario()
