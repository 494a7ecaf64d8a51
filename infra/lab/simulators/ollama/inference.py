"""How long reading and writing take on one node, and who slows whom.

A token of the simulator is four characters of a prompt, or one word of an answer.
Reading costs only what is not in the slot's cached prefix. Writing is shared by all sequences of the node,
and slowed while any prompt is read.
"""

from __future__ import annotations

from math import inf
from random import Random

from infra.lab.simulators.ollama.memory import slowdown
from infra.lab.simulators.ollama.parameters import Parameters
from infra.lab.simulators.ollama.scheduler import Runner
from shared.clock import Clock

CHARACTERS_PER_TOKEN = 4


def count_tokens(text: str) -> int:
    """Tokens of a prompt; an empty one has none."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


class Engine:
    """The node's processor: knows how many sequences read and write at this moment."""

    def __init__(self, parameters: Parameters, clock: Clock, random: Random) -> None:
        self._node = parameters
        self._clock = clock
        self._random = random
        self.reading = 0
        self.writing = 0

    async def read(self, runner: Runner, tokens: int) -> None:
        """Compute a prompt's uncached tokens."""
        speed = self._node.prefill_speed(runner.want.model) / slowdown(runner.footprint, self._node)
        seconds = tokens / speed
        if seconds <= 0:
            return
        self.reading += 1
        try:
            await self._clock.sleep(seconds)
        finally:
            self.reading -= 1

    def token_seconds(self, runner: Runner) -> float:
        """Time to the next token of one sequence, under the load of this moment, with jitter."""
        speed = self._node.decode_speed(runner.want.model)
        if speed == inf:
            return 0.0
        share = float(max(1, self.writing) ** self._node.decode_sharing)
        busy = 1 / (1 - self._node.prefill_interference) if self.reading else 1.0
        jitter = 1 + self._node.jitter * (2 * self._random.random() - 1)
        return slowdown(runner.footprint, self._node) * share * busy * jitter / speed
