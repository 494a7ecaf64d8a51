"""A worker's new boot voids what the old one held, and only when the old one is gone: every interleaving of the rule.

A node with two boots (incarnations 1 and 2) and one mailbox with an unfenced position; two homes with a streaming step each and a queue of
what the boots tell them (claim, ok, release, started). A home voids, refuses and stops claims, its leases and claim timeouts run out (one
also too early), it may be taken over and forgets the highest incarnation. The old boot may crash, drain, pause and wake, be slow (credits
silent, renewals not), and learns late that it is superseded.
Bounded: once the new boot goes on, the old one reads first attempts only (one more with an early timeout), else it could meet new ones for
ever. Not modelled: routers, what credits hold, other nodes, chunks, retry limits, the planner's own log (`protocol.py`).

Checked: the new boot speaks up only when the old one does not generate; the end that is accepted is that of the claim that stands, so that
two boots never feed one stream; where only faults could still happen every step is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from tests.model.search import Explored, Step, checks, explore

MOST_ATTEMPTS = 9
LIVE = ("run", "drain")


class Boot(NamedTuple):
    doing: str
    """none, watch, telling (home 0 next), told (home 1 next), run, drain, paused, left, dead"""
    read: int = 0
    """Position in the mailbox."""
    claims: frozenset[tuple[int, int]] = frozenset()
    """(home, attempt)"""
    commits: bool = False
    """Its position is not committed yet."""


class Home(NamedTuple):
    attempt: int = 1
    claim: int | None = None
    """Incarnation that holds the newest attempt."""
    armed: bool = True
    """The claim timeout."""
    done: bool = False
    highest: int = 0
    """Incarnation."""


class Told(NamedTuple):
    kind: str
    """started, claim, ok, release"""
    boot: int
    attempt: int = 0


class Faults(NamedTuple):
    crash: int = 0
    pause: int = 0
    drain: int = 0
    slow: int = 0
    taken_over: int = 0
    early_timeout: int = 0


class State(NamedTuple):
    faults: Faults
    mailbox: tuple[tuple[int, int], ...] = ((0, 1), (1, 1))
    """(home, attempt)"""
    committed: int = 0
    boots: tuple[Boot, Boot] = (Boot("run"), Boot("none"))
    told: tuple[tuple[Told, ...], tuple[Told, ...]] = ((), ())
    homes: tuple[Home, Home] = (Home(), Home())
    stops: frozenset[tuple[int, int, int]] = frozenset()
    """(incarnation, home, attempt)"""
    slow: bool = False
    wrong: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule; set otherwise, a planted bug."""

    faults: Faults = field(default_factory=Faults)
    places: int = 1
    waits_for: str = "silence"
    """Of credits and renewals, or a word that the old one left or is dead. Bugs: credits, nothing."""
    drains_silently: bool = False
    """A draining worker sends no credits."""
    refusal_disarms: bool = False
    """A refused claim stops the claim timeout."""
    accepts_any: bool = False
    """An outcome of the newest attempt counts, whoever holds the claim."""
    leases: bool = True
    refuses_older: bool = True
    """A home that knows a higher incarnation refuses later claims of lower ones."""
    announces: bool = True


def set_boot(state: State, at: int, boot: Boot) -> State:
    return state._replace(boots=(boot, state.boots[1]) if at == 0 else (state.boots[0], boot))


def set_home(state: State, at: int, home: Home) -> State:
    return state._replace(homes=(home, state.homes[1]) if at == 0 else (state.homes[0], home))


def tell(state: State, at: int, message: Told) -> State:
    first, second = state.told
    return state._replace(told=((*first, message), second) if at == 0 else (first, (*second, message)))


def spend(state: State, fault: str) -> State:
    return state._replace(faults=state.faults._replace(**{fault: getattr(state.faults, fault) - 1}))


def next_attempt(state: State, at: int) -> State:
    home = state.homes[at]
    after = home._replace(attempt=home.attempt + 1, claim=None, armed=True)
    return set_home(state, at, after)._replace(mailbox=(*state.mailbox, (at, after.attempt)))


def boot_steps(state: State, at: int, rule: Rule) -> Iterator[Step[State]]:
    boot, name = state.boots[at], f"boot {at + 1}"
    if boot.doing == "none":
        yield Step(f"{name} starts and watches", set_boot(state, at, boot._replace(doing="watch")))
    elif boot.doing == "watch" and old_is_gone(state, rule):
        heir = boot._replace(doing="telling" if rule.announces else "run", read=state.committed)
        early = state.boots[0].doing in LIVE and bool(state.boots[0].claims)
        after = set_boot(state, at, heir)
        yield Step(f"{name} goes on", after._replace(wrong="the new boot voids what the old one still runs") if early else after)
    elif boot.doing == "telling":
        yield Step(f"{name} tells home 0", tell(set_boot(state, at, boot._replace(doing="told")), 0, Told("started", at + 1)))
    elif boot.doing == "told":
        reading = set_boot(state, at, boot._replace(doing="run", read=state.committed))
        yield Step(f"{name} tells home 1, reads its mailbox", tell(reading, 1, Told("started", at + 1)))
    elif boot.doing in LIVE:
        yield from work(state, at, rule)
    if at == 0:
        yield from old_boot(state, boot)


def old_is_gone(state: State, rule: Rule) -> bool:
    doing = state.boots[0].doing
    if rule.waits_for == "nothing" or doing in ("left", "dead", "paused"):
        return True
    return rule.waits_for == "credits" and (state.slow or (rule.drains_silently and doing == "drain"))


def work(state: State, at: int, rule: Rule) -> Iterator[Step[State]]:
    boot, name = state.boots[at], f"boot {at + 1}"
    free = boot.doing == "run" and len(boot.claims) < rule.places and boot.read < len(state.mailbox)
    if free and (at or state.boots[1].doing in ("none", "watch") or state.mailbox[boot.read][1] < 2 + rule.faults.early_timeout):
        home, attempt = state.mailbox[boot.read]
        claiming = boot._replace(read=boot.read + 1, claims=boot.claims | {(home, attempt)}, commits=True)
        yield Step(f"{name} claims {home}/{attempt}", tell(set_boot(state, at, claiming), home, Told("claim", at + 1, attempt)))
    if boot.commits:
        yield Step(f"{name} commits {boot.read}", set_boot(state, at, boot._replace(commits=False))._replace(committed=boot.read))
    for home, attempt in boot.claims:
        without = set_boot(state, at, boot._replace(claims=boot.claims - {(home, attempt)}))
        yield Step(f"{name} finishes {home}/{attempt}", tell(without, home, Told("ok", at + 1, attempt)))
        if (at + 1, home, attempt) in state.stops:
            yield Step(f"{name} stops {home}/{attempt}", without)
        if boot.doing == "drain":
            yield Step(f"{name} releases {home}/{attempt}", tell(without, home, Told("release", at + 1, attempt)))
    if boot.doing == "drain" and not boot.claims and not boot.commits:
        yield Step(f"{name} says that it left", set_boot(state, at, boot._replace(doing="left")))


def old_boot(state: State, boot: Boot) -> Iterator[Step[State]]:
    if boot.doing == "run" and state.boots[1].doing == "run":
        yield Step("boot 1 learns that it is superseded", set_boot(state, 0, boot._replace(doing="dead", claims=frozenset())))
    if boot.doing == "paused":
        yield Step("boot 1 wakes", set_boot(state, 0, boot._replace(doing="run")))
    if boot.doing in LIVE:
        if state.faults.crash:
            yield Step("boot 1 crashes", spend(set_boot(state, 0, boot._replace(doing="dead", claims=frozenset())), "crash"), fault=True)
        if state.faults.slow:
            yield Step("boot 1 is slow, its credits are silent", spend(state._replace(slow=True), "slow"), fault=True)
    if boot.doing == "run":
        for fault, doing in (("pause", "paused"), ("drain", "drain")):
            if getattr(state.faults, fault):
                yield Step(f"boot 1: {fault}", spend(set_boot(state, 0, boot._replace(doing=doing)), fault), fault=True)


def home_steps(state: State, at: int, rule: Rule) -> Iterator[Step[State]]:
    home = state.homes[at]
    if state.told[at]:
        rest = state.told[at][1:]
        read = state._replace(told=(rest, state.told[1]) if at == 0 else (state.told[0], rest))
        yield Step(f"home {at} reads {state.told[at][0]}", hear(read, at, state.told[at][0], rule))
    elif not home.done:
        yield from timers(state, at, rule)
    if state.faults.taken_over and home.highest:
        yield Step(f"home {at} is taken over", spend(set_home(state, at, home._replace(highest=0)), "taken_over"), fault=True)


def hear(state: State, at: int, message: Told, rule: Rule) -> State:
    home = state.homes[at]
    newest = message.attempt == home.attempt
    if message.kind == "started":
        void = not home.done and home.claim is not None and home.claim < message.boot
        after = set_home(state, at, home._replace(highest=max(home.highest, message.boot)))
        return next_attempt(after, at) if void else after
    if message.kind == "claim":
        return hear_claim(state, at, message, rule)
    if home.done or not newest:
        return state
    if message.kind == "ok" and (home.claim == message.boot or rule.accepts_any):
        foreign = home.claim not in (None, message.boot)
        after = set_home(state, at, home._replace(done=True, armed=False))
        return after._replace(wrong=state.wrong or "the end comes from another boot than the claim") if foreign else after
    return next_attempt(state, at) if message.kind == "release" and home.claim == message.boot else state


def hear_claim(state: State, at: int, message: Told, rule: Rule) -> State:
    home = state.homes[at]
    newest = message.attempt == home.attempt
    stopped = state._replace(stops=state.stops | {(message.boot, at, message.attempt)})
    if rule.refuses_older and message.boot < home.highest:
        return set_home(stopped, at, home._replace(armed=False)) if rule.refusal_disarms and newest else stopped
    if newest and not home.done and home.claim is None:
        return set_home(state, at, home._replace(claim=message.boot, armed=False))
    return state if newest and home.claim == message.boot else stopped


def timers(state: State, at: int, rule: Rule) -> Iterator[Step[State]]:
    home = state.homes[at]
    if home.claim is not None and rule.leases:
        holder = state.boots[home.claim - 1]
        if holder.doing not in LIVE or (at, home.attempt) not in holder.claims:
            yield Step(f"home {at}: the lease of {home.attempt} ends", next_attempt(state, at))
    if home.armed:
        if not readable(state, state.mailbox.index((at, home.attempt))):
            yield Step(f"home {at}: claim timeout of {home.attempt}", next_attempt(state, at))
        elif state.faults.early_timeout:
            yield Step(
                f"home {at}: claim timeout of {home.attempt}, too early", spend(next_attempt(state, at), "early_timeout"), fault=True
            )


def readable(state: State, record: int) -> bool:
    """Whether a boot will still read the mailbox's record."""
    waiting = ("watch", "telling", "told", "none")
    return any(record >= (boot.read if boot.doing == "run" else state.committed) for boot in state.boots if boot.doing in ("run", *waiting))


def steps(state: State, rule: Rule) -> Iterator[Step[State]]:
    for at in (0, 1):
        yield from boot_steps(state, at, rule)
        yield from home_steps(state, at, rule)


def wrong(state: State) -> str | None:
    return state.wrong or ("attempts without end" if max(home.attempt for home in state.homes) > MOST_ATTEMPTS else None)


def unfinished(state: State) -> str | None:
    return None if all(home.done for home in state.homes) else "a step waits for ever"


def search(rule: Rule) -> Explored:
    return explore(State(rule.faults), partial(steps, rule=rule), wrong, unfinished)


CRASH, PAUSE, SLOW, DRAIN = Rule(Faults(crash=1)), Rule(Faults(pause=1)), Rule(Faults(slow=1)), Rule(Faults(crash=1, drain=1))
HOLDS = {
    "the old boot crashes": CRASH,
    "it pauses and wakes": PAUSE,
    "it drains, may crash": DRAIN,
    "it is slow": SLOW,
    "a crash, a take-over, an early timeout": Rule(Faults(crash=1, taken_over=1, early_timeout=1)),
    "it drains, an early timeout": Rule(Faults(drain=1, early_timeout=1)),
    "two places, it drains, may crash": replace(DRAIN, places=2),
}
LONG = {"later claims of the old boot are not refused: its leases end them, only later": replace(PAUSE, refuses_older=False)}
BUGS = {
    "void at once": (replace(DRAIN, waits_for="nothing"), "the new boot voids what the old one still runs"),
    "never announced, no lease": (replace(PAUSE, announces=False, leases=False), "a step waits for ever"),
    "credits alone count as silence": (replace(SLOW, waits_for="credits"), "the new boot voids what the old one still runs"),
    "a draining worker sends no credits": (
        replace(DRAIN, waits_for="credits", drains_silently=True),
        "the new boot voids what the old one still runs",
    ),
    "a refused claim disarms the claim timeout": (replace(PAUSE, refusal_disarms=True), "a step waits for ever"),
    "any outcome of the newest attempt counts": (replace(PAUSE, accepts_any=True), "the end comes from another boot than the claim"),
}


LONG_BUGS = {
    "forgotten after a take-over, no lease": (Rule(Faults(pause=1, taken_over=1), leases=False), "a step waits for ever"),
}
"""124,000 states."""


test_the_rule_holds, test_a_planted_bug_is_seen = checks(search, HOLDS | LONG, BUGS | LONG_BUGS, states=100, long=(*LONG, *LONG_BUGS))
