"""From decisions to records: where each effect of a round goes, under which key, partition and headers."""

from __future__ import annotations

from services.planner.round import Answer, Dispatch, Effect, Publish, Stop
from shared.contracts import headers
from shared.contracts.job import ReplyTo
from shared.contracts.reply import Final
from shared.contracts.result import Result
from shared.kafka.port import Message
from shared.topics import Topics, partition_of, steps_partition


def of_effect(effect: Effect, topics: Topics) -> list[Message]:
    """The records that carry an effect out; the first of a Publish is its result."""
    match effect:
        case Dispatch():
            return [_dispatch(effect, topics)]
        case Stop(mailbox=mailbox, control=control):
            envelope = headers.envelope(control.type)
            return [Message(topics.controls, control.to_bytes(), control.job.encode(), mailbox, envelope)]
        case Publish(settled=settled, followers=followers):
            waiting = followers if settled.reply is None else (settled.reply, *followers)
            return [_result(settled.result, settled.trace, topics), *(_final(reply, settled.result, settled.trace) for reply in waiting)]
        case Answer(reply=reply, result=result, trace=trace):
            return [_final(reply, result, trace)]


def _dispatch(dispatch: Dispatch, topics: Topics) -> Message:
    step = dispatch.step
    partition = steps_partition(step.tenant, step.id, topics.settings.steps_partitions)
    topic = topics.steps(step.capability, step.priority_class)
    return Message(topic, step.to_bytes(), step.id.encode(), partition, headers.envelope("step", dispatch.trace))


def _result(result: Result, trace: str | None, topics: Topics) -> Message:
    key = result.job.encode()
    partition = partition_of(key, topics.settings.other_partitions)
    return Message(topics.results, result.to_bytes(), key, partition, headers.envelope("result", trace))


def _final(reply: ReplyTo, result: Result, trace: str | None) -> Message:
    final = Final(correlation=reply.correlation, result=result)
    envelope = (*headers.envelope("final", trace), *headers.correlation_headers(reply))
    return Message(reply.topic, final.to_bytes(), result.job.encode(), reply.partition, envelope)
