"""From decisions to records: where each effect of a round goes, under which key, partition and headers."""

from __future__ import annotations

from base64 import urlsafe_b64encode

from services.planner.draft import (
    AskPosition,
    Begin,
    Bury,
    CallerAnswer,
    Disown,
    Dispatch,
    Publish,
    Sendable,
    Stop,
    StopAnywhere,
    Tell,
)
from shared.contracts import headers, ids
from shared.contracts.batch import LineEnded, OfBatch
from shared.contracts.budget import BudgetGranted, BudgetRecalled, BudgetRequested
from shared.contracts.cache import CacheAbandoned, CacheFill, CacheLookup
from shared.contracts.control import StopStep
from shared.contracts.conversation import ToHome, ToOwner
from shared.contracts.job import ReplyTo
from shared.contracts.result import Result
from shared.kafka.port import Message
from shared.topics import Topics, partition_of, steps_partition


def of_effect(effect: Sendable, topics: Topics) -> list[Message]:
    """The records that carry an effect out; the first of a Publish is its result."""
    match effect:
        case Dispatch():
            return [_dispatch(effect, topics)]
        case Stop(mailbox=mailbox, control=control):
            return [_stop(control, mailbox, topics)]
        case Begin(mailbox=mailbox, control=said) | Disown(mailbox=mailbox, control=said):
            return [Message(topics.controls, said.to_bytes(), said.node.encode(), mailbox, headers.envelope(said.type))]
        case StopAnywhere(control=control):
            return [_stop(control, mailbox, topics) for mailbox in range(topics.mailboxes)]
        case Publish(settled=settled, followers=followers, body=body):
            result, body = settled.result, body or settled.result.to_bytes()
            owed = [reply for reply in (settled.reply, *followers) if reply is not None and not reply.reads_events]
            finals = [_final(reply, result, body, settled.trace) for reply in owed]
            return [_result(result, body, settled.trace, topics), *finals]
        case Bury(letter=letter):
            return [letter]
        case CacheFill() | CacheAbandoned():
            return [to_cache(topics.fills, effect, topics)]
        case Tell(home=home, outcome=outcome):
            key = owner_key(outcome)
            partition = partition_of(key, topics.settings.home_partitions) if home is None else home
            tenant = outcome.tenant if isinstance(outcome, LineEnded) else None  # the others hold no text
            return [Message(topics.outcomes, outcome.to_bytes(), key, partition, headers.envelope(outcome.type), tenant)]
        case CallerAnswer(reply=reply, result=result, trace=trace):
            return [_final(reply, result, result.to_bytes(), trace)]
        case AskPosition(reply=reply, broken=broken, tenant=tenant):
            asking = (*headers.envelope(broken.type), *headers.correlation_headers(reply))
            return [Message(reply.topic, broken.to_bytes(), broken.job.encode(), reply.partition, asking, tenant)]


def to_cache(topic: str, said: CacheLookup | CacheFill | CacheAbandoned, topics: Topics) -> Message:
    """By the step's fingerprint: equal steps meet at one cache."""
    key = said.key.encode()
    partition = partition_of(key, topics.settings.other_partitions)
    return Message(topic, said.to_bytes(), key, partition, headers.envelope(said.type), said.tenant)


def owner_key(outcome: BudgetRequested | BudgetGranted | BudgetRecalled | ToHome | ToOwner | OfBatch) -> bytes:
    """By which its owner is at home: of an account the tenant, of a conversation and a batch its name under the tenant."""
    name = getattr(outcome, "conversation", None) or getattr(outcome, "batch", None)
    return (outcome.tenant if name is None else ids.under(outcome.tenant, name)).encode()


def _stop(control: StopStep, mailbox: int, topics: Topics) -> Message:
    return Message(topics.controls, control.to_bytes(), control.job.encode(), mailbox, headers.envelope(control.type))


def _dispatch(dispatch: Dispatch, topics: Topics) -> Message:
    step, given = dispatch.step, dispatch.given
    if step.is_critique:
        key = step.id.encode()
        partition = partition_of(key, topics.settings.other_partitions)
        return Message(
            topics.critiques, step.to_bytes(dispatch.content), key, partition, headers.envelope("step", dispatch.trace), step.tenant
        )
    if given is not None and not given.failed:
        used = f"{given.use.boot}/{given.use.sequence}".encode()
        head = (
            *headers.envelope("step", dispatch.trace),
            (headers.NODE, given.node.encode()),
            (headers.WHY, given.why),
            (headers.CREDITS, used),
        )
        value = step.of_valid(**{**step.__dict__, "model": given.model}).to_bytes(dispatch.content)
        return Message(topics.work(step.capability), value, step.id.encode(), given.mailbox, head, step.tenant)
    partition = steps_partition(step.tenant, step.home, topics.steps_partitions(step.capability))
    topic = topics.steps(step.capability, step.priority_class)
    head = headers.envelope("step", dispatch.trace)
    return Message(topic, step.to_bytes(dispatch.content), step.id.encode(), partition, head, step.tenant)


def _result(result: Result, body: bytes, trace: str | None, topics: Topics) -> Message:
    key, head = result.job.encode(), headers.envelope("result", trace)
    if result.callback is not None:
        head += ((headers.CALLBACK, b"1"),)
    return Message(topics.results, body, key, partition_of(key, topics.settings.other_partitions), head, result.tenant)


def _final(reply: ReplyTo, result: Result, body: bytes, trace: str | None) -> Message:
    envelope = (*headers.envelope("final", trace), *headers.correlation_headers(reply))
    return Message(reply.topic, final_bytes(reply.correlation, body), result.job.encode(), reply.partition, envelope, result.tenant)


def final_bytes(correlation: bytes, result: bytes) -> bytes:
    """The JSON of a Final around a result that is JSON already: the body is serialised once for `results` and all who wait."""
    return b'{"type":"final","correlation":"%b","result":%b}' % (urlsafe_b64encode(correlation), result)
