"""The planner's process, wired: what administrators declared is followed, and homes follow the assignment of one group consumer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from services.planner.handlers import JobReader
from services.planner.intake.nodes_heard import NodesHeard
from services.planner.sending.eager import Eager
from services.planner.sending.writer import TURNS, EventWriter
from services.planner.settings import PlannerSettings
from services.planner.shard.homes import QUIET_SECONDS, Homes
from services.planner.shard.wiring import Wiring
from shared.agents.table import Declarations
from shared.contracts import budget, schedule
from shared.contracts.versions import NEWEST
from shared.kafka.assignor import HomeAssignor
from shared.patterns import load
from shared.processing.blobs import Blobs
from shared.processing.outbox import Outbox
from shared.processing.provision import first_look
from shared.processing.registry import LimitsByTenant, follow_registry
from shared.scheduling.schedule_table import ScheduleTable
from shared.service import Environment
from shared.service.processor import Processor, every
from shared.services import group_of

FETCH_BYTES = 512 * 1024
"""Of one partition in one fetch: a queue overshoots its bound by at most this."""
_REGISTRY_LOOK_SECONDS = 0.02


def build(environment: Environment, settings: PlannerSettings | None = None) -> Planner:
    """The planner of one process; settings come from its environment unless given."""
    return Planner(environment, settings or PlannerSettings())


class Planner:
    """Implements `shared.service.Service`."""

    name = "planner"

    def __init__(self, environment: Environment, settings: PlannerSettings) -> None:
        self._env, self._settings, clock, topics, name = environment, settings, environment.clock, environment.topics, environment.instance
        self._patterns, self._agents = load(environment.settings.patterns), Declarations()
        self.homes = Homes(topics, clock)
        # A lane's task begins a turn later: what is dispatched beside an append arrives with it, and leaves in its request.
        self.outbox = Outbox(clock, self.name, topics, gather_turns=TURNS - 1, relieved=self.homes.nudge)
        self._blobs = Blobs(environment.log, clock, topics, service=self.name, instance=environment.instance)
        self._limits, self._schedules = LimitsByTenant(), ScheduleTable(topics.settings.capabilities, self.homes.nudge)
        kinds = {budget.KIND: self._limits.on_entry, schedule.KIND: self._schedules.apply, **self._agents.kinds, **self.homes.beliefs.kinds}
        self._declared = follow_registry(environment.log, clock, topics, client_id=f"{name}-registry", service=self.name, kinds=kinds)
        self._heard = NodesHeard(environment.log, clock, topics, f"{name}-heard")
        self._schedules.complete = self._declared.caught_up
        self._eager = Eager(environment.log, topics, clock, name, self._heard.on_records)
        self._processor = Processor(self._connect, reasons=self.homes.reasons, drain=self._drain)
        self.run, self.readiness = self._processor.run, self._processor.readiness
        environment.topics_made_anew.append(self.homes.on_made_anew)

    async def _connect(self) -> None:
        """Whose limits hold is known before the first job is read, if there are any."""
        env, topics, settings, processor, homes = self._env, self._env.topics, self._settings, self._processor, self.homes
        policy = replace(settings.policy(), capabilities=topics.settings.capabilities, patterns=self._patterns, declared=self._agents)
        await first_look(env.log, topics, env.clock)
        admin = await env.log.admin()
        cluster = await admin.cluster_id()
        await admin.close()
        processor.spawn(self._declared.run())
        processor.waits_for = "what administrators declared is not read to its end"
        while not self._declared.caught_up() and topics.registry not in topics.missing:
            await env.clock.sleep(_REGISTRY_LOOK_SECONDS)
        joining = env.log.consumer(
            client_id=f"{env.instance}-planner",
            group=group_of(self.name, topics.settings.prefix),
            reset="earliest",
            assignor=HomeAssignor(topics.settings.home_partitions, version=NEWEST),
            max_partition_fetch_bytes=FETCH_BYTES,
            committed_only=True,
        )
        consumer = await processor.open(joining)
        producer = await processor.open(env.log.producer(client_id=f"{env.instance}-planner"))
        processor.closes(self._blobs)
        await homes.begin(
            Wiring(
                log=env.log,
                clock=env.clock,
                random=env.random,
                topics=topics,
                options=settings,
                policy=replace(policy, silent_seconds=self._heard.silent_seconds, beliefs=homes.beliefs, learned=homes.beliefs.of),
                dead_letter_cap=env.settings.dead_letter_cap,
                instance=env.instance,
                reader=JobReader(cluster, topics),
                schedules=self._schedules,
                consumer=consumer,
                writer=EventWriter(producer, env.clock),
                outbox=self.outbox,
                rewind=homes.rewind,
                unpause=homes.unpause,
                still_owner=homes.still_owner,
                eager=self._eager,
                tenants=self._limits,
                blobs=self._blobs,
                spawn=processor.begin,
            )
        )
        processor.spawn(
            *homes.parts(),
            every(env.clock, settings.commit_interval_seconds, homes.commit),
            self.outbox.run(producer, partial(env.log.producer, client_id=f"{env.instance}-callers")),
            *(self._eager.parts(producer, self.outbox) if settings.eager else (self._heard.run(),)),
        )

    async def _drain(self) -> None:
        """Finish the rounds in flight, commit and leave the group."""
        await self._eager.announce(leaving=True)
        await self.homes.suspend()
        await self.outbox.idle(QUIET_SECONDS)
        await self.homes.commit()
