"""Recurring jobs: which runs are due, and their beginning (decision 0008)."""
