"""Shares: in which order priority classes are served, and what each got. Pure. For the places where classes meet: intake, router.

Interactive goes first as long as it has had no more than its share (nine of ten by default) of what is served while others wait, plus a
burst. What it leaves is divided between standard and batch, 4 to 1, by a weighted deficit; a weight grows with the age of what waits.
So everything that waits is served after a bounded amount of other work, whatever arrives (`longest_wait`).
"""

from __future__ import annotations

from collections.abc import Mapping

from shared.contracts.base import PriorityClass

INTERACTIVE_SHARE = 0.9
"""By default: of what is served while other classes wait, at most."""
WEIGHTS = {PriorityClass.STANDARD: 4.0, PriorityClass.BATCH: 1.0}
"""Of the classes below interactive, while both wait."""
AGEING_SECONDS = {PriorityClass.STANDARD: 30.0, PriorityClass.BATCH: 60.0}
"""After each of these the class counts once more its weight."""
AGEING_CAP = 8.0


class ClassShares:
    """The account of one place where classes meet.

    `burst`: what interactive may take before its share binds, in units of cost; below the refill of one large piece it gets less than its
    share.
    """

    def __init__(self, interactive_share: float, burst: float) -> None:
        self._refill = interactive_share / (1.0 - interactive_share)
        self._burst = burst
        self._budget = burst
        self._served = dict.fromkeys(WEIGHTS, 0.0)  # cost divided by weight: the least is next
        self._floor = 0.0

    def order(self, ages: Mapping[PriorityClass, float]) -> list[PriorityClass]:
        """Classes that wait, next first; `ages` gives the seconds that each has waited."""
        rest = sorted((c for c in WEIGHTS if c in ages), key=self._standing)
        if PriorityClass.INTERACTIVE not in ages:
            return rest
        return [PriorityClass.INTERACTIVE, *rest] if self._budget > 0 else [*rest, PriorityClass.INTERACTIVE]

    def served(self, served: PriorityClass, cost: float, ages: Mapping[PriorityClass, float]) -> None:
        """`cost` went to a class while those in `ages` (itself among them) waited and could be served."""
        if served is PriorityClass.INTERACTIVE:
            if len(ages) > 1 and self._budget > 0:
                self._budget -= cost
            return
        self.served_alone(served, cost)
        self._served[served] = self._standing(served) + cost / weight(served, ages[served])
        self._floor = max(self._floor, min(self._standing(c) for c in WEIGHTS if c in ages))

    def served_alone(self, served: PriorityClass, cost: float) -> None:
        """`cost` went to a class while no other waited: nobody's claim grows by it."""
        if served is not PriorityClass.INTERACTIVE:
            self._budget = min(self._burst, self._budget + cost * self._refill)

    def not_served(self, taken: PriorityClass, cost: float) -> None:
        """What was counted as served is not. The weight of its age is not known any longer: somewhat too little is given back."""
        if taken is PriorityClass.INTERACTIVE:
            self._budget = min(self._burst, self._budget + cost)
        else:
            self._budget -= cost * self._refill
            self._served[taken] -= cost / (WEIGHTS[taken] * AGEING_CAP)

    def _standing(self, priority_class: PriorityClass) -> float:
        """A class that did not wait has saved nothing up."""
        return max(self._served[priority_class], self._floor)


def weight(priority_class: PriorityClass, age: float) -> float:
    """Of a class whose oldest has waited `age` seconds."""
    return WEIGHTS[priority_class] * min(AGEING_CAP, 1.0 + age / AGEING_SECONDS[priority_class])


def longest_wait(priority_class: PriorityClass, *, interactive_share: float, burst: float, largest: float) -> float:
    """The most that is served to other classes between two services of a class that waits all the time. `largest`: cost of one piece.

    Of standard and batch the other one takes at most the weights' worst ratio for one piece, and one piece more; interactive takes its
    burst, overshoots it by one piece, and gets its refill for what the rest takes. Interactive waits until one piece's overshoot is
    refilled.
    """
    refill = interactive_share / (1.0 - interactive_share)
    if priority_class is PriorityClass.INTERACTIVE:
        return largest + largest / refill
    other = PriorityClass.BATCH if priority_class is PriorityClass.STANDARD else PriorityClass.STANDARD
    rival = largest * (1.0 + AGEING_CAP * WEIGHTS[other] / WEIGHTS[priority_class])
    return rival + burst + largest + rival * refill
