"""Short answers: how several of one question are compared and counted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from shared.contracts.chat import ChatMessage
from shared.contracts.job import Job
from shared.patterns.chain import job_input
from shared.validators.checks import plain

_LEAD = re.compile(r"^(?:(?:so|thus|therefore|hence),? )?(?:the |my )?(?:final |correct )?(?:answer|result|solution) ?(?:is|:|=)+ ?:? ?")
_MARKS = " \t\"'`*_$.,;:!()[]"
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_NUMBER = re.compile(r"([-+]?)([€£])? ?([1-9]\d{0,2}(?:[, ]\d{3})+|\d+)?([.,]\d+)?(?: ?(%|[a-z°€£][a-z°/23]{0,15}))?")
_MOST = 400
"""Characters of an answer that are compared."""


def normalised(text: str) -> str:
    """What is left where only the form differs: case, spaces, marks around it, `The answer is`, and of a number its separators and zeros
    (1,000 is 1000.0, 3,5 is 3.5). Empty where nothing is: no answer.
    """
    boxed = _BOXED.search(text)
    words = plain(boxed.group(1) if boxed else text[: 2 * _MOST])[:_MOST].strip(_MARKS)
    words = _LEAD.sub("", words).strip(_MARKS)
    found = _NUMBER.fullmatch(words)
    if found is None or not (found[3] or found[4]):
        return words
    sign, before, whole, part, after = (group or "" for group in found.groups())
    digits = re.sub("[, ]", "", whole).lstrip("0") or "0"
    rest = part[1:].rstrip("0")
    number = digits + ("." + rest if rest else "")
    unit = before or after
    return f"{'-' if sign == '-' and number != '0' else ''}{number}{' ' if unit else ''}{unit}"


def counted(answers: Sequence[str | None], before: Mapping[str, int] | None = None) -> dict[str, list[int]]:
    """Normalised answer → whose it is, by index; most first, then by how many had it `before`, then the lowest index. None is no vote."""
    groups: dict[str, list[int]] = {}
    for index, answer in enumerate(answers):
        if answer is not None and (key := normalised(answer)):
            groups.setdefault(key, []).append(index)
    known = before or {}
    return dict(sorted(groups.items(), key=lambda group: (-len(group[1]), -known.get(group[0], 0), group[1][0])))


def turns_with(job: Job, words: str) -> tuple[ChatMessage, ...]:
    """The job's turns, these words after the last one of its user: some models' templates take no two of one role in a row."""
    turns = job.turns
    if turns and turns[-1].role == "user":
        last = turns[-1]
        return (*turns[:-1], last.model_copy(update={"content": f"{last.content}\n\n{words}"}))
    asked = f"{job_input(job)}\n\n{words}" if job.prompt is not None else words
    return (*turns, ChatMessage(role="user", content=asked))
