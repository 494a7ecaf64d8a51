"""Ledgers: messages between homes that are of no job's attempts: budgets, turns of conversations, batches. Pure."""

from __future__ import annotations

from typing import Any

from services.planner.batches import batch_owner
from services.planner.conversations import owner
from services.planner.deciding import turns
from services.planner.round import Round
from shared.contracts.batch import BatchCancelled, BatchSubmitted, LineEnded
from shared.contracts.budget import BudgetGranted, BudgetRecalled, BudgetRequested
from shared.contracts.conversation import (
    ConversationDropped,
    ConversationSet,
    TurnAsked,
    TurnEnded,
    TurnGranted,
    TurnRefused,
)

_BUDGETS = (BudgetRequested, BudgetGranted, BudgetRecalled)
_TURNS = (TurnAsked, TurnGranted, TurnRefused, TurnEnded, ConversationSet, ConversationDropped)
_BATCHES = (BatchSubmitted, BatchCancelled, LineEnded)
MESSAGES: tuple[type[Any], ...] = (*_BUDGETS, *_TURNS, *_BATCHES)


def on_message(round_: Round, told: Any) -> None:
    """One of them, in log order."""
    book = round_.book
    if isinstance(told, _BUDGETS):
        book.funds.on_outcome(round_, told)
    elif isinstance(told, TurnGranted):
        turns.on_granted(round_, told)
    elif isinstance(told, TurnRefused):
        turns.on_refused(round_, told)
    elif isinstance(told, BatchSubmitted):
        book.batches.on_submitted(round_, told)
    elif isinstance(told, BatchCancelled):
        book.batches.on_cancelled(round_, told)
    else:
        book.conversations.on_message(round_, told)


def on_due(round_: Round, key: str) -> None:
    """A timer that is no job's."""
    if key.startswith(owner.TIMER):
        round_.book.conversations.on_due(round_, key)
    elif key.startswith(batch_owner.TIMER):
        round_.book.batches.on_due(round_, key)
    else:
        round_.book.funds.on_due(round_, key)
