"""Logs, metrics and traces: how a process tells what it does. Never prompts, answers or secrets (DESIGN 5, law 10)."""
