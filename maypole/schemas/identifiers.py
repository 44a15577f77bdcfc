"""Identities of flows, events, steps and commands, derived from their causes.

Name-based UUIDs (RFC 9562, version 5) in one namespace over length-prefixed UTF-8 fields. The prefix matters:
flow ids may be foreign strings, and plain concatenation would make ("ab", "c") and ("a", "bc") one cause.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha1
from typing import NewType
from uuid import UUID, uuid4, uuid5

FlowId = NewType("FlowId", str)
EventId = NewType("EventId", str)
StepId = NewType("StepId", str)
CommandId = NewType("CommandId", str)

NAMESPACE = uuid5(UUID(int=0), "maypole")
"""The project's own namespace. It can never change: every identity on every log is derived from it."""

_BEGUN = sha1(NAMESPACE.bytes, usedforsecurity=False)
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_LENGTHS = [length.to_bytes(4, "big") for length in range(256)]


def _field(text: str) -> bytes:
    data = text.encode()
    length = len(data)
    return (_LENGTHS[length] if length < 256 else length.to_bytes(4, "big")) + data


_constant = lru_cache(maxsize=4096)(_field)
"""For names of agents and types, of which there are few, while every id is new."""


def _named(name: bytes) -> str:
    # What uuid.uuid5 does with these bytes, without the UUID object: three of these are made for every event. For the same
    # reason the ids below are not passed through their types, which at run time are calls that change nothing.
    digest = _BEGUN.copy()
    digest.update(name)
    text = digest.hexdigest()
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"


def derive(*fields: str) -> str:
    """The identity of a cause: UUID version 5 of the fields, each prefixed with its length in bytes as four bytes."""
    return _named(b"".join(map(_field, fields)))


_STEP, _OUTPUT, _JOURNAL = _field("step"), _field("output"), _field("journal")


@lru_cache(maxsize=256)
def _index(index: int) -> bytes:
    return _field(str(index))


def new_flow_id() -> FlowId:
    """A flow that nobody will ever start again: random, because it has no idempotency key to be derived from."""
    return FlowId(str(uuid4()))


def flow_id_of(root_type: str, idempotency_key: str) -> FlowId:
    return FlowId(derive("flow", root_type, idempotency_key))


def root_event_id(flow: FlowId, event_type: str, index: int = 0) -> EventId:
    return EventId(derive("root", flow, event_type, str(index)))


def step_id_of(flow: FlowId, agent: str, subscription: str, trigger: str) -> StepId:
    """`trigger` is the id of the event; of a join `joined_trigger`, or `awaited_trigger` when it may expire."""
    return _named(_STEP + _field(flow) + _constant(agent) + _constant(subscription) + _field(trigger))  # type: ignore[return-value]


def joined_trigger(parents: Iterable[EventId]) -> str:
    return derive("join", *sorted(parents))


def awaited_trigger(iteration: int) -> str:
    """The trigger of a join that may expire: its step must have a name before all its parts are known.

    `iteration` counts from 0 how often the flow has come to this join before.
    """
    return derive("awaited join", str(iteration))


def output_event_id(step: StepId, event_type: str, index: int) -> EventId:
    """`index` counts all outputs of the step from 0, in the order returned."""
    return _named(_OUTPUT + _field(step) + _constant(event_type) + _index(index))  # type: ignore[return-value]


def journal_event_id(record_type: str, about: str) -> EventId:
    """The id of a journal record: what it says of which flow or step. Written twice, it is the same event."""
    return _named(_JOURNAL + _constant(record_type) + _field(about))  # type: ignore[return-value]


def command_id_of(flow: FlowId, step: StepId, kind: str, generation: int) -> CommandId:
    return CommandId(derive("command", flow, step, kind, str(generation)))


def digest_of(value: bytes) -> bytes:
    """SHA-256 of an event's value as it lies on the topic."""
    return hashlib.sha256(value).digest()


def trace_id_of(flow: FlowId) -> str:
    """32 hexadecimal digits. Hashed, because ratio samplers read the low 64 bits, which in a UUID are not uniform."""
    return hashlib.blake2b(flow.encode(), digest_size=16).hexdigest()


def root_span_id_of(flow: FlowId) -> str:
    """16 hexadecimal digits: whoever adopts a flow makes the same root."""
    return hashlib.blake2b(flow.encode(), digest_size=8, person=b"maypole root").hexdigest()


def root_traceparent(flow: FlowId) -> str:
    """W3C trace context of the flow's root span, sampled."""
    return f"00-{trace_id_of(flow)}-{root_span_id_of(flow)}-01"
