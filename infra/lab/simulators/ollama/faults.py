"""Which failure, if any, strikes a request: triggers first, in order, then chance, mode by mode."""

from __future__ import annotations

from collections import Counter
from random import Random

from infra.lab.simulators.ollama.parameters import FailureMode, Failures, Trigger


class Faults:
    """The failures in force; `change` replaces them at run time."""

    def __init__(self, failures: Failures, random: Random) -> None:
        self._random = random
        self.change(failures)

    def change(self, failures: Failures) -> None:
        """From the next request on. Triggers count from the start again."""
        self.failures = failures
        self._matches: Counter[int] = Counter()
        self._struck: Counter[int] = Counter()

    def draw(self, model: str, prompt: str) -> FailureMode | None:
        """The failure of one request; at most one."""
        for number, trigger in enumerate(self.failures.triggers):
            if _matches(trigger, model, prompt) and self._strikes(number, trigger):
                return trigger.mode
        chances = self.failures.chances
        return next((mode for mode in FailureMode if (chance := chances.get(mode)) and self._random.random() < chance), None)

    def _strikes(self, number: int, trigger: Trigger) -> bool:
        self._matches[number] += 1
        if self._matches[number] % trigger.every or (trigger.times is not None and self._struck[number] >= trigger.times):
            return False
        self._struck[number] += 1
        return True


def _matches(trigger: Trigger, model: str, prompt: str) -> bool:
    return trigger.contains in prompt and trigger.model in ("", model)
