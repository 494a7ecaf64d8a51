"""Logs, metrics and traces: how a process tells what it does. Never prompts, answers or secrets (ARCHITECTURE, law 10)."""
