"""gemma3:270m as packaged is a *base* model: it continues text. Two worked examples make it answer, and stop after the answer."""

from __future__ import annotations

MODEL = "gemma3:270m"

CHAT_TEMPLATE = """\
Question: What is the capital of Italy?
Answer:
Rome is the capital of Italy.

Question: How many days are in a week?
Answer:
There are seven days in a week.

{% for message in messages %}{% if message['role'] == 'assistant' %}{{ message['content'] }}

{% elif message['role'] == 'user' %}Question: {{ message['content'] }}
Answer:
{% else %}{{ message['content'] }}

{% endif %}{% endfor %}"""
"""Jinja, as llama.cpp takes it. The answer starts on a line of its own, so that it has no leading space."""

STOPS = ("\n\nQuestion:", "\nQuestion:", "Question:")
"""Where the model goes on to invent the next question; longest first, so that the empty line before it goes too."""
