"""Batches of tenants: which lines are sent, and what has come of them. No I/O (model: `tests/model/test_batches.py`)."""
