"""Upkeep: what rounds do for the log: forget what is over, and tell again what holds the watermark too far behind. Not every round looks.

Each kind by itself: one that fails again and again is left undone. Then the watermark stays where it is, and replay is long.
"""

from __future__ import annotations

from services.planner.deciding import funding
from services.planner.round import Round
from shared.processing.tries import Chore

_BUDGETS = Chore("budgets")
_LOOK_EVENTS = 64
"""Own events until what is kept is looked at again, where it need not be sooner: a lone job pays nothing for it."""


def upkeep(round_: Round, expected: int, distance: int) -> bool:
    """`expected`: offset of the next own event. Whether another round should follow at once: a look has left some of what is kept.

    Raises what a kind raises, which spoils the round; `book.tries` knows whose it is.
    """
    book, more = round_.book, False
    if book.kept.due(expected, round_.now):
        told = sum(len(kind.places) for kind in book.kept.kinds)
        far = max(distance, 3 * told // 2)  # else to tell some would for ever make others too far
        for kind in book.kept.kinds:
            if book.tries.may(kind.chore):
                more = kind.renew(round_, expected, far) or more
        book.kept.looked(expected, round_.now, 0 if more else min(_LOOK_EVENTS, distance // 8))
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
    if book.funds.attention and book.tries.may(_BUDGETS):
        funding.fund(round_)
