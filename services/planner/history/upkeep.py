"""Upkeep: what every round does for the log: forget what is over, and tell again what holds the watermark too far behind.

Each kind by itself: one that fails again and again is left undone. Then the watermark stays where it is, and replay is long.
"""

from __future__ import annotations

from services.planner.deciding import funding
from services.planner.round import Round
from shared.processing.tries import Chore

_BUDGETS = Chore("budgets")


def upkeep(round_: Round, expected: int, distance: int) -> bool:
    """`expected`: offset of the next own event. Whether another round should follow at once: there is more.

    Raises what a kind raises, which spoils the round; `book.tries` knows whose it is.
    """
    book = round_.book
    more, told = False, sum(len(kind.places) for kind in book.kept.kinds)
    distance = max(distance, 3 * told // 2)  # else to tell some would for ever make others too far
    for kind in book.kept.kinds:
        if book.tries.may(kind.chore):
            more = kind.renew(round_, expected, distance) or more
    flush_ledgers(round_)
    book.tries.at = None
    return more


def flush_ledgers(round_: Round) -> None:
    """That part alone, at the end of a replay."""
    book = round_.book
    if book.conversations.kept.attention:
        book.conversations.kept.flush(round_)
    if book.batches.kept.attention:
        book.batches.kept.flush(round_)
    if book.tries.may(_BUDGETS):
        funding.fund(round_)
