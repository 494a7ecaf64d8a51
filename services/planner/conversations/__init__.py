"""Conversations of tenants: whose turn it is, and what is known of what was said. No I/O (model: `tests/model/test_turns.py`)."""
