"""The laws on a whole simulated cluster whose machines are somebody's: owners come and go while everything else goes wrong, too."""

from __future__ import annotations

import pytest

from tests.support.cluster.faults import FaultMix
from tests.support.cluster.simulation import simulate

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.mark.parametrize(
    ("seed", "mix"),
    [
        (1, FaultMix(owner=0.5)),
        (2, FaultMix(owner=0.4, kill=0.3, pause=0.2, delivery_seconds=0.3, duplicated=0.1)),
        (3, FaultMix(owner=0.4, stop=0.2, succeed=0.2, lose_node=0.1, model_error=0.1, broken_stream=0.1)),
    ],
)
def test_the_laws_hold_where_owners_come_and_go(seed: int, mix: FaultMix) -> None:
    """What a node gives back is run elsewhere, or later there; every job ends once."""
    report = simulate(seed, mix)
    if report.violations:
        pytest.fail(report.text(f"this test, seed {seed}"), pytrace=False)
