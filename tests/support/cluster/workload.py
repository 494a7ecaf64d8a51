"""What users ask of the simulated cluster: jobs of all kinds from Kafka producers and REST callers, drawn from the seed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from shared.contracts import ids
from shared.contracts.base import CLASSES, PriorityClass
from shared.contracts.job import Job
from shared.contracts.review import ReviewGiven, ReviewOpened
from shared.contracts.schedule import Missed, Schedule
from shared.kafka.port import Message, TopicPartition
from shared.patterns import BUILT_IN
from shared.topics import partition_of
from tests.support.cluster import receivers, settings
from tests.support.cluster.batched import batched
from tests.support.cluster.foreign import BEYOND, LOW, NAMES, misspelt, nobody_has
from tests.support.cluster.laws.told import NOBODY_HAS
from tests.support.cluster.nodes import ENDLESS, LEAK, LONG, MODEL
from tests.support.cluster.receivers import TENANTS
from tests.support.cluster.rest import Request
from tests.support.cluster.world import World

CHAIN = [
    {"name": "first", "template": "one {input}"},
    {"name": "second", "template": "two {first}"},
    {"name": "third", "template": "{second}"},
]
_CHAINED = {"pattern": "chain", "chain": CHAIN}
_AGAIN_SECONDS, CROWD = 8.0, 40
_PATTERNS = [name for name, pattern in BUILT_IN.current.items() if pattern.takes_bare_prompt and name != "single"]
_ANYWHERE, _CANCELLED_BY_KEY, _CANCELLED_BY_CALLER = 0.3, 0.25, 0.2
"""Of producers the first: another partitioner than ours, or no key."""


@dataclass(slots=True)
class Workload:
    """Submits `jobs` of them over the first seconds of a run. `kinds`: weight of each kind."""

    world: World
    random: Random
    jobs: int
    seconds: float
    kinds: dict[str, float] | None = None
    poison: int = 0
    _number: int = 0
    _background: set[asyncio.Task[Any]] = field(default_factory=set)

    async def run(self) -> None:
        """Submit everything; what comes later than its submission (cancels, second submissions) goes on beside."""
        kinds, foreign = self.kinds or WEIGHTS, self.world.mix.foreign
        for _ in range(self.jobs):
            await asyncio.sleep(self.random.uniform(0.0, 2.0 * self.seconds / self.jobs))
            drawn = FOREIGN if foreign and self.random.random() < foreign else kinds
            [kind] = self.random.choices(list(drawn), list(drawn.values()))
            self._number += 1
            _KINDS[kind](self)

    async def finish(self) -> None:
        """Wait for what goes on beside."""
        await asyncio.gather(*self._background)

    # From Kafka producers

    def produce(self, body: dict[str, Any], *, kind: str = "job", priority_class: PriorityClass | None = None) -> PriorityClass:
        """One record on jobs.<class>. A job with an id goes where its key says, as most clients would send it; or anywhere."""
        chosen = priority_class or self.random.choice(CLASSES)
        topic, homes = self.world.topics.jobs(chosen), self.world.topics.settings.home_partitions
        key = None
        if "id" in body:
            key = (ids.qualified(body.get("tenant", "default"), body["id"]) if kind == "cancel" else body["id"]).encode()
        anywhere = key is None or self.random.random() < _ANYWHERE
        partition = self.random.randrange(homes) if key is None or anywhere else partition_of(key, homes)
        value = None if kind == "cancel" else json.dumps(body).encode()
        head = (("type", kind.encode()),) if kind != "job" else ()
        self.world.log.write(TopicPartition(topic, partition), [Message(topic, value, key, partition, head)])
        return chosen

    def body(self, **more: Any) -> dict[str, Any]:
        return {"prompt": f"q{self._number}", "tenant": self.random.choice(TENANTS), **more}

    def later(self, seconds: float, action: Callable[[], Any]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            action()

        task = asyncio.create_task(wait())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _single(self) -> None:
        self.produce(self.body())

    def _crowd(self) -> None:
        """Many of one tenant at one home, and behind them one of another."""
        home, topic = self.random.randrange(self.world.topics.settings.home_partitions), self.world.topics.jobs(PriorityClass.BATCH)
        first, other = self.random.sample(TENANTS, 2)
        for number in range(CROWD):
            body = {"prompt": f"q{self._number} {number}", "tenant": other if number == CROWD - 1 else first}
            self.world.log.write(TopicPartition(topic, home), [Message(topic, json.dumps(body).encode(), None, home)])

    def _endless(self) -> None:
        """As long an answer as there may be, of a class that has hours: a queue is made of these."""
        chosen = self.random.choice((PriorityClass.STANDARD, PriorityClass.BATCH))
        self.produce(self.body() | {"prompt": f"{ENDLESS} q{self._number}"}, priority_class=chosen)

    def _chain(self) -> None:
        self.produce(self.body(pattern="chain", chain=CHAIN[: self.random.randint(2, 3)]))

    def _pattern(self) -> None:
        """Any that takes a bare prompt; a few run into a limit, or are cancelled in the middle."""
        limits = self.random.choice(({}, {}, {"calls": self.random.randint(1, 6)}))
        body = self.body(pattern=self.random.choice(_PATTERNS), limits=limits, id=f"pattern-{self._number}")
        body["prompt"] = f"q{self._number} first\nsecond\nthird"
        chosen = self.produce(body)
        if self.random.random() < _CANCELLED_BY_CALLER:
            self.later(self.random.uniform(0.0, 6.0), lambda: self.produce(body, kind="cancel", priority_class=chosen))

    def _again(self) -> None:
        """The same id once or twice more, while it runs or after its end."""
        body = self.body(id=f"own-{self._number}")
        chosen = self.produce(body)
        for _ in range(self.random.randint(1, 2)):
            self.later(self.random.uniform(0.0, _AGAIN_SECONDS), lambda: self.produce(body, priority_class=chosen))

    def _delayed(self) -> None:
        """Most just come when they are due; some are cancelled, by key or by a REST caller, mostly before."""
        body = self.body(not_before=self.world.clock.wall() + self.random.uniform(0.2, 9.0))
        match self.random.random():
            case draw if draw < _CANCELLED_BY_KEY:
                body["id"] = f"later-{self._number}"
                chosen = self.produce(body)
                self.later(self.random.uniform(0.0, 7.0), lambda: self.produce(body, kind="cancel", priority_class=chosen))
            case draw if draw < _CANCELLED_BY_KEY + _CANCELLED_BY_CALLER:
                request = Request("POST", "/v1/jobs", body)
                self._call(request)
                self.later(self.random.uniform(0.5, 7.0), lambda: self._delete(request))
            case _:
                self.produce(body)

    def _metered(self) -> None:
        """Of a tenant with limits per day, or of concurrent jobs."""
        more = {"pattern": "chain", "chain": CHAIN} if self.random.random() < 0.4 else {}
        self.produce(self.body(**more) | {"tenant": self.random.choice(tuple(settings.LIMITED))})

    def _scheduled(self) -> None:
        """A schedule with a few runs within the next seconds."""
        now = self.world.clock.wall()
        step = self.random.randint(2, 4)
        due = tuple(float(int(now) + 1 + step * number) for number in range(1, self.random.randint(1, 3) + 1))
        minute = int(due[0] // 60 * 60)
        due = tuple(instant for instant in due if instant < minute + 60)
        cron = time.strftime(f"{','.join(str(int(instant) - minute) for instant in due)} %M %H * * *", time.gmtime(minute))
        job = Job(prompt=f"q{self._number}", tenant=self.random.choice(TENANTS))
        chosen, missed = self.random.choice(CLASSES), self.random.choice(tuple(Missed))
        name = f"schedule-{self._number}"
        self.world.schedule(Schedule(id=name, cron=cron, job=job, priority_class=chosen, missed=missed, late_seconds=1, since=now), due)

    def _cancelled(self) -> None:
        """Some before they begin, some while they run; a few before their job's record."""
        text = f"{ENDLESS} q{self._number}" if self.random.random() < 0.6 else f"q{self._number}"
        body = self.body(id=f"cancel-{self._number}") | {"prompt": text}
        chosen = self.random.choice(CLASSES)
        self.later(self.random.uniform(0.0, 0.3), lambda: self.produce(body, priority_class=chosen))
        self.later(self.random.uniform(0.0, 6.0), lambda: self.produce(body, kind="cancel", priority_class=chosen))

    def _deadline(self) -> None:
        text = f"{ENDLESS} q{self._number}" if self.random.random() < 0.5 else f"q{self._number}"
        body = self.body(deadline_at=self.world.clock.wall() + self.random.uniform(0.5, 8.0)) | {"prompt": text}
        self.produce(body)

    def _reviewed(self) -> None:
        """People decide, by REST or as an ingress writes it, until after the end of the time; some twice, some otherwise."""
        rules = {"quorum": self.random.choice((1, 1, 2)), "default": self.random.choice(("approve", "reject"))}
        review = {"deadline_seconds": self.random.uniform(1.0, 8.0), **rules}
        body = self.body(id=f"review-{self._number}", pattern="chain", chain=[{**CHAIN[0], "review": review}, CHAIN[1]])
        self.produce(body)
        for _ in range(self.random.randint(0, 5)):
            self.later(self.random.uniform(0.5, 12.0), partial(self._decide, ids.qualified(body["tenant"], body["id"]), body["tenant"]))

    def _talks(self) -> None:
        """A job of one of few conversations, sometimes cancelled while it waits or runs."""
        talk = {"conversation": self.random.choice(("c", "d")), "id": f"talk-{self._number}"}
        body = self.body(**talk, **(_CHAINED if self.random.random() < 0.3 else {}))
        body["prompt"] += f" and what was said before, number {self._number}" * 5
        self.produce(body)
        if self.random.random() < 0.2:
            self.later(self.random.uniform(0.0, 6.0), partial(self.produce, body, kind="cancel"))

    def _called(self) -> None:
        """A job whose end somebody is told of, by Kafka or REST; some cancelled, some delayed, some again and again, some by reference."""
        host, events = self.random.choice(receivers.HOSTS), self.random.choice(({}, {"events": ["failed", "cancelled"]}))
        more = self.random.choice(({}, {"not_before": self.world.clock.wall() + 3.0}, {"limits": {"calls": 1}, **_CHAINED}))
        body = self.body(callback={"url": f"https://{host}/hook", **events}, **more)
        if self.random.random() < 0.4:
            self._call(Request("POST", "/v1/jobs", body))
            return
        body["id"] = f"called-{self._number}"
        self.produce(body)
        for again in (partial(self.produce, body), partial(self.produce, body, kind="cancel")):
            if self.random.random() < 0.3:
                self.later(self.random.uniform(0.0, 6.0), again)

    def _policed(self) -> None:
        """Of a tenant with policies: by any pattern, by Kafka or REST, streamed or not."""
        text = f"{settings.MAIL} asks, {LEAK if self.random.random() < 0.6 else 'never mind'}, q{self._number}"
        body = {"prompt": text, "tenant": self.random.choice(tuple(settings.POLICED))}
        if self.random.random() < 0.5:
            self._call(Request("POST", "/v1/jobs", body | {"stream": self.random.random() < 0.7}))
            return
        gated = {"pattern": "chain", "chain": [CHAIN[0], {**CHAIN[1], "gate": {"checks": {"min_chars": 12}, "repairs": 2}}]}
        self.produce(body | self.random.choice(({}, {}, gated, {"pattern": self.random.choice(_PATTERNS)})))

    def _decide(self, job: str, tenant: str) -> None:
        opened = [written.value for written in self.world.history.of_job(job) if isinstance(written.value, ReviewOpened)]
        if not opened:
            return
        said = {"verdict": self.random.choice(("approve", "approve", "reject")), "digest": opened[-1].digest}
        if self.random.random() < 0.5:
            self._call(Request("POST", f"/v1/reviews/{ids.public(job)}.{opened[-1].step}?tenant={tenant}", said))
            return
        given = ReviewGiven.model_validate({**said, "job": job, "step": opened[-1].step, "by": self.random.choice(("ann", "bob"))})
        topic, home = self.world.topics.outcomes, ids.home_of(job, self.world.topics.settings.home_partitions)
        head = (("type", given.type.encode()),)
        self.world.log.write(TopicPartition(topic, home), [Message(topic, given.to_bytes(), job.encode(), home, head)])

    def _asked_often(self) -> None:
        """One of a few questions of few tenants: most of them have an answer already, or soon."""
        options = self.random.choice(({"temperature": 0.0}, {"temperature": 0.0}, {"seed": 7}, {"temperature": 0.7}))
        text = self.random.choice(("why", "how", "when", *((f"{LONG} why",) if self.random.random() < 0.2 else ())))
        stream, chained = self.random.random() < 0.3, self.random.random() < 0.15
        asked = {"cache": {"mode": "exact"} | self.random.choice(settings.CACHE_CONTROLS), "options": options, "model": MODEL}
        body = self.body(id=f"often-{self._number}", stream=stream, **asked)
        body |= {"prompt": text, **(_CHAINED if chained else {})}
        chosen = self.produce(body)
        if self.random.random() < 0.15:
            self.later(self.random.uniform(0.0, 2.0), partial(self.produce, body, kind="cancel", priority_class=chosen))

    def _limited(self) -> None:
        self.produce(self.body(**_CHAINED, limits=self.random.choice(LOW)))

    def _poison(self) -> None:
        self.poison += 1
        topic = self.world.topics.jobs(PriorityClass.STANDARD)
        home = self.random.randrange(self.world.topics.settings.home_partitions)
        value = self.random.choice((b"not json", b'{"prompt": 7}', b'{"promt": "x"}', b"", b'{"prompt": "x", "pattern": "chain"}'))
        self.world.log.write(TopicPartition(topic, home), [Message(topic, value, None, home)])

    def _hopeless(self) -> None:
        """What cannot succeed ends with a typed failure: an unknown pattern, a model that no node has."""
        more = self.random.choice(({"pattern": "unheard-of"}, {"model": NOBODY_HAS, "deadline_at": self.world.clock.wall() + 10.0}))
        self.produce(self.body(**more))

    def _nowhere(self) -> None:
        """A model that no node has, and no deadline: the routers' limit ends it."""
        self.produce(self.body(model=NOBODY_HAS))

    # From foreign Kafka producers

    def anywhere(self, value: bytes | None, key: bytes | None, *head: tuple[str, bytes]) -> None:
        """One record on any partition of any class."""
        topic, home = self.world.topics.jobs(self.random.choice(CLASSES)), self.random.randrange(self.world.topics.settings.home_partitions)
        self.world.log.write(TopicPartition(topic, home), [Message(topic, value, key, home, head)])

    def _elsewhere(self) -> None:
        """Several records of one id, each with any key or none, on any topic and partition: one job. Some are cancelled from anywhere."""
        id_ = f"any-{self._number}"
        body = self.body(id=id_)
        value = json.dumps(body).encode()
        for _ in range(self.random.randint(2, 4)):
            key = self.random.choice((None, id_.encode(), b"customer-7", b"\xff\x00"))
            self.later(self.random.uniform(0.0, _AGAIN_SECONDS), partial(self.anywhere, value, key))
        if self.random.random() < _CANCELLED_BY_KEY:
            cancel = partial(self.anywhere, None, ids.qualified(body["tenant"], id_).encode(), ("type", b"cancel"))
            self.later(self.random.uniform(0.0, _AGAIN_SECONDS), cancel)

    def _scripts(self) -> None:
        """Names and texts of any script, in all that a job may hold; written as UTF-8 or as escapes."""
        name, label = self.random.choice(NAMES), self.random.choice(NAMES)
        body = self.body(metadata={label: name}, system=name, options={"stop": [name]}) | {"prompt": f"{name} q{self._number}"}
        self.anywhere(json.dumps(body, ensure_ascii=self.random.random() < 0.5).encode(), name.encode(), ("traceparent", name.encode()))

    def _beyond(self) -> None:
        """A number, name or text that no job may have: a dead letter."""
        self.anywhere(json.dumps(self.body(**self.random.choice(BEYOND))).encode(), self.random.choice((None, b"k")))

    def _nobody(self) -> None:
        """What no node can ever run, without a deadline: it fails in the end, and says what is missing."""
        self.anywhere(json.dumps(self.body(**self.random.choice(nobody_has(CHAIN)))).encode(), None)

    def _large(self) -> None:
        """Above the inline bound, of one endless word: by Kafka, some delayed or several times under one id from anywhere, or by REST."""
        more: dict[str, Any] = self.random.choice(({}, {"id": f"large-{self._number}"}, {"not_before": self.world.clock.wall() + 3.0}))
        body = self.body(**more) | {"prompt": f"q{self._number} " + "x" * 66_000}
        if self.random.random() < 0.3:
            self._call(Request("POST", "/v1/jobs", body))
            return
        for _ in range(self.random.randint(1, 3) if "id" in body else 1):
            self.later(self.random.uniform(0.0, _AGAIN_SECONDS), partial(self.anywhere, json.dumps(body).encode(), None))

    # From REST callers

    def _call(self, request: Request) -> None:
        living = [name for name in self.world.instances if name.startswith("ingress")]
        if not living:
            return
        name = self.random.choice(living)
        task = self.world.call(name, request.run(self.world.instances[name].service.asgi()))
        if task is not None:
            self.world.requests.append(request)

    def _rest(self) -> None:
        body = self.body(stream=self.random.random() < 0.3) | {"class": self.random.choice(CLASSES).value}
        request = Request("POST", "/v1/jobs", body)
        self._call(request)
        if self.random.random() < 0.3:
            self.later(self.random.uniform(0.0, 5.0), lambda: self._delete(request))

    def _delete(self, created: Request) -> None:
        if created.answer.status == 202:
            self._call(Request("DELETE", f"/v1/jobs/{created.answer.json['id']}"))

    def _story(self) -> None:
        """A long stream whose caller stays."""
        body = {"model": "tutti/auto", "messages": [{"role": "user", "content": f"{LONG} q{self._number}"}], "stream": True}
        self._call(Request("POST", "/v1/chat/completions", body))

    def _keyed(self) -> None:
        """The same request under one key once or twice more, perhaps elsewhere, while its job runs or when it has ended."""
        text = f"{LONG} q{self._number}" if self.random.random() < 0.2 else f"q{self._number}"
        body = {"model": "tutti/auto", "messages": [{"role": "user", "content": text}], "stream": self.random.random() < 0.3}
        head = ((b"idempotency-key", b"key-%d" % self._number),)
        for _ in range(self.random.randint(2, 3)):
            self.later(self.random.uniform(0.0, _AGAIN_SECONDS), lambda: self._call(Request("POST", "/v1/chat/completions", body, head)))

    def _chat(self) -> None:
        text = f"{LONG} q{self._number}" if self.random.random() < 0.2 else f"q{self._number}"
        body = {"model": "tutti/auto", "messages": [{"role": "user", "content": text}], "stream": self.random.random() < 0.6}
        leaves = self.random.uniform(0.1, 5.0) if self.random.random() < 0.4 else None
        priority_class = self.random.choice(CLASSES).value.encode()
        self._call(Request("POST", "/v1/chat/completions", body, ((b"x-tutti-class", priority_class),), leaves))


_KINDS: dict[str, Callable[[Workload], None]] = {
    "single": Workload._single,
    "crowd": Workload._crowd,
    "endless": Workload._endless,
    "chain": Workload._chain,
    "pattern": Workload._pattern,
    "again": Workload._again,
    "delayed": Workload._delayed,
    "metered": Workload._metered,
    "scheduled": Workload._scheduled,
    "cancelled": Workload._cancelled,
    "deadline": Workload._deadline,
    "limited": Workload._limited,
    "reviewed": Workload._reviewed,
    "talks": Workload._talks,
    "called": Workload._called,
    "batched": lambda load: batched(load.world, load.random, load._number, load.later),
    "poison": Workload._poison,
    "hopeless": Workload._hopeless,
    "nowhere": Workload._nowhere,
    "rest": Workload._rest,
    "chat": Workload._chat,
    "keyed": Workload._keyed,
    "story": Workload._story,
    "elsewhere": Workload._elsewhere,
    "scripts": Workload._scripts,
    "beyond": Workload._beyond,
    "nobody": Workload._nobody,
    "misspelt": lambda load: misspelt(load.body(id=f"own-{load._number}"), load.random, load.later, load.anywhere),
    "large": Workload._large,
    "policed": Workload._policed,
    "often": Workload._asked_often,
}
FOREIGN = {"elsewhere": 3.0, "scripts": 2.0, "beyond": 2.0, "nobody": 1.0, "misspelt": 1.0}
"""Of the share of jobs that are as foreign producers send them."""
WEIGHTS = {
    "single": 2.0,
    "chain": 3.0,
    "again": 2.0,
    "delayed": 3.0,
    "metered": 4.0,
    "scheduled": 1.0,
    "cancelled": 2.0,
    "deadline": 1.5,
    "limited": 1.5,
    "poison": 0.5,
    "hopeless": 0.5,
    "rest": 2.0,
    "chat": 3.0,
}
