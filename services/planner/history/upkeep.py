"""Upkeep: what every round does for the log: forget what is over, and write again what holds the watermark too far behind.

Each part by itself: one that fails again and again is left undone. Then the watermark stays where it is, and replay is long.
"""

from __future__ import annotations

from collections.abc import Callable

from services.planner.history import snapshots
from services.planner.round import Round
from services.planner.state.book import Book
from shared.processing.tries import Chore

_BUDGETS = Chore("budgets")
_PARTS: tuple[tuple[Chore, Callable[[Book, Round, int, int], None]], ...] = (
    (Chore("forgetting cancels"), lambda book, round_, *_: book.cancels.forget(round_.wall)),
    (Chore("writing snapshots"), snapshots.write_due),
    (Chore("writing cancels again"), lambda book, round_, *at: book.cancels.rewrite(round_, book.epoch, *at)),
    (Chore("writing runs again"), lambda book, round_, *at: book.runs.rewrite(round_, book.epoch, *at)),
    (Chore("writing ids again"), lambda book, round_, expected, _: book.carried_ids.rewrite(round_, book.epoch, expected)),
    (Chore("writing budgets again"), lambda book, round_, expected, _: book.funds.renew(expected, round_.wall)),
    (_BUDGETS, lambda book, round_, *_: book.funds.flush(book, round_)),
)


def upkeep(book: Book, round_: Round, expected: int, distance: int) -> None:
    """`expected`: offset of the next own event. Raises what a part raises, which spoils the round; `book.tries` knows whose it is."""
    for chore, work in _PARTS:
        if book.tries.may(chore):
            work(book, round_, expected, distance)
    book.tries.at = None


def flush_budgets(book: Book, round_: Round) -> None:
    """That part alone, at the end of a replay."""
    if book.tries.may(_BUDGETS):
        book.funds.flush(book, round_)
