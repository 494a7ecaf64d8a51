"""Beliefs: how often judges found a model's answers good, by kind of what was asked. Advice for choices; no event depends on it. Pure.

Each home's owner counts what the jobs that end there have noted (`Context.judge`), by the settle event that history has: so nothing is
counted twice, and a successor that replays goes on from the entry which its predecessor has told. What that had not told of, and the
watermark has passed, is lost: verdicts of `TELL_SECONDS`. Every reader of the registry adds the homes up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from shared.contracts.agents import Belief, QueryKind
from shared.contracts.base import ModelName
from shared.contracts.beliefs import FORGOTTEN, KIND, MOST_MODELS, HomeBeliefs
from shared.model_names import canonical

TELL_SECONDS = 10.0
"""A home's entry is written at most so often, as a node's record: the registry is read whole."""
NEWEST = 60
"""Of the verdicts of a model and kind, in all homes together, about so many decide: what is older fades. Fewer follow a change sooner, and
know less: decision 0064."""
_MOST_HOMES = 4_096
_MOST = 1e6
"""Of a `Belief`."""


class Judgement(NamedTuple):
    """A judge has said this of one answer."""

    model: ModelName
    kind: QueryKind
    good: bool


@dataclass(slots=True)
class _Home:
    """`models` in the order in which they were last judged. `epoch`: of who counted last."""

    through: int = -1
    epoch: int = -1
    models: OrderedDict[str, dict[QueryKind, tuple[float, float]]] = field(default_factory=OrderedDict)

    def add(self, said: Judgement, fades: float) -> None:
        kinds = self.models.setdefault(said.model, {})
        self.models.move_to_end(said.model)
        good, bad = kinds.get(said.kind, (0.0, 0.0))
        kinds[said.kind] = good * fades + said.good, bad * fades + (not said.good)
        if len(self.models) > MOST_MODELS:
            self.models.popitem(last=False)


class Beliefs:
    """Of all homes, as far as this process has heard. `homes`: how many there are."""

    def __init__(self, homes: int = 1) -> None:
        self._fades = max(0.5, 1.0 - homes / NEWEST)
        self._homes: dict[int, _Home] = {}
        self._untold: set[int] = set()
        self.kinds = {KIND: self.on_entry}
        """What reads the registry's entries."""

    def on_entry(self, _kind: str, name: str, value: bytes | None) -> None:
        """An entry of the registry, in log order. Raises ValueError when it is not valid: the one before stands."""
        what, _, model = name.partition(":")
        if what == FORGOTTEN:
            if value is not None:
                self._forget(canonical(model) if model else None)
            return
        home = int(name)
        if not 0 <= home < _MOST_HOMES:
            raise ValueError("there is no such home")
        read = HomeBeliefs(through=-1) if value is None else HomeBeliefs.model_validate_json(value)
        mine = self._homes.setdefault(home, _Home())
        # Of the same offset his is newer who has counted: something was forgotten since.
        if value is None or read.through > mine.through or (read.through == mine.through and mine.epoch < 0):
            mine.through = read.through
            mine.models = OrderedDict(
                (model, {kind: (seen.good, seen.bad) for kind, seen in kinds.items()}) for model, kinds in read.models.items()
            )

    def _forget(self, model: str | None) -> None:
        for number, home in self._homes.items():
            gone = [name for name in home.models if model in (None, name)]
            for name in gone:
                del home.models[name]
            if gone and home.epoch >= 0:  # this process has counted there, and may have told it meanwhile
                self._untold.add(number)

    def count(self, number: int, epoch: int, offset: int, said: Sequence[Judgement]) -> None:
        """A job of this home has ended; its settle event lies at `offset`. `epoch`: in which its owner holds the home."""
        home = self._homes.setdefault(number, _Home())
        if home.epoch != epoch:
            home.epoch = epoch
            if home.through > epoch:  # the log of events was made anew
                home.through = -1
        if offset > home.through:
            home.through = offset
            for one in said:
                home.add(one, self._fades)
            self._untold.add(number)

    def of(self, _tenant: str, model: ModelName) -> Mapping[QueryKind, Belief]:
        """What is believed of a model (its full name), by kind; of all tenants together."""
        found: dict[QueryKind, tuple[float, float]] = {}
        for home in self._homes.values():
            for kind, (good, bad) in home.models.get(model, _NOTHING).items():
                before = found.get(kind, (0.0, 0.0))
                found[kind] = before[0] + good, before[1] + bad
        return {kind: Belief(good=min(good, _MOST), bad=min(bad, _MOST)) for kind, (good, bad) in found.items()}

    def models(self) -> list[ModelName]:
        """All of which something is believed."""
        return sorted({model for home in self._homes.values() for model in home.models})

    def to_tell(self) -> Iterator[tuple[str, bytes]]:
        """Entries of homes that have counted something since this was asked last: (name, value)."""
        untold, self._untold = self._untold, set()
        for number in sorted(untold):
            home = self._homes[number]
            yield (
                str(number),
                HomeBeliefs(through=home.through, models={model: _told(kinds) for model, kinds in home.models.items()}).to_bytes(),
            )

    def not_told(self, name: str) -> None:
        """That entry did not come to lie there: it is told again."""
        self._untold.add(int(name))


_NOTHING: Mapping[QueryKind, tuple[float, float]] = {}


def _told(kinds: Mapping[QueryKind, tuple[float, float]]) -> dict[QueryKind, Belief]:
    return {kind: Belief(good=round(good, 2), bad=round(bad, 2)) for kind, (good, bad) in kinds.items()}
