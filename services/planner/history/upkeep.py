"""Upkeep: what every round does for the log: forget what is over, and write again what holds the watermark too far behind."""

from __future__ import annotations

from services.planner.engine.book import Book
from services.planner.history import snapshots
from services.planner.round import Round


def upkeep(book: Book, round_: Round, expected: int, distance: int) -> None:
    """`expected`: offset of the next own event."""
    book.cancels.forget(round_.wall)
    snapshots.write_due(book, round_, expected, distance)
    for carried in (book.cancels, book.runs):
        carried.rewrite(round_, book.epoch, expected, distance)
    book.carried_ids.rewrite(round_, book.epoch, expected)
    book.funds.renew(expected, round_.wall)
    book.funds.flush(book, round_)
