"""The small hook through which a flow is observed. The bus declares it and never imports who implements it.

Implementations must neither raise nor wait: observation never stops or slows delivery.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Literal, Protocol

from maypole.bus.ports import Delivery, Receipt
from maypole.schemas.envelope import Envelope
from maypole.schemas.identifiers import EventId, FlowId, root_traceparent, trace_id_of

Outcome = Literal["ok", "skipped", "duplicate_skipped", "retry", "dead_letter", "fenced", "compensated", "revoked"]
"""`retry`: it waits on a retry topic for its next attempt. `fenced`: the flow does not want it any more.
`compensated`: of an undo.
`skipped`: the agent only observes the flow, and the subscription acts on the outside, so its handler was not called."""


class Sending(Protocol):
    """One record on its way. `traceparent` goes into its header."""

    traceparent: str
    tracestate: str | None

    def acknowledged(self, receipt: Receipt) -> None: ...

    def failed(self, reason: str) -> None: ...


class Sender(Protocol):
    traceparent: str
    """What journal records about it carry."""
    tracestate: str | None

    def sending(self, topic: str, event_id: EventId, flow_id: FlowId, causation_id: str | None) -> Sending:
        """Begin to send one record, as a child of this."""
        ...


class Processing(Sender, Protocol):
    """One delivery, from the moment it is taken up until it is acknowledged."""

    def handling(self) -> AbstractContextManager[None]:
        """Around the handler: what it observes by itself becomes a part of this delivery."""
        ...

    def attempt_failed(self, attempt: int, error: BaseException, *, last: bool) -> None:
        """One try of the handler failed. Unless it was the `last`, `handling` is entered again for the next one."""
        ...

    def held(self, because: str) -> None:
        """It waits, and no attempt at it counts as failed. `handling` is entered again when it goes on."""
        ...

    def breaker_moved(self, state: str, breaker: str, because: str) -> None:
        """This delivery opened, tried or closed a breaker: `state` is `opened`, `half_open` or `closed`."""
        ...

    def ended(self, outcome: Outcome, attempts: int, detail: str | None = None) -> None:
        """Nothing of it is left to do. `detail` says why it was dead-lettered, or what it was served instead."""
        ...


class Tracing(Protocol):
    observes: bool
    """Whether anybody wants to know where a record lies; those that do not are spared asking for it."""

    def started(self, flow_id: FlowId, event_type: str, business_key: str | None, foreign: str | None) -> Sender:
        """A flow begins here. `foreign` is the traceparent that a foreign client sent along, to be linked."""
        ...

    def processing(
        self, agent: str, delivery: Delivery, envelope: Envelope, step_id: str, queued_ms: float, beside: Sequence[str] = ()
    ) -> Processing:
        """One delivery begins. `beside` are the traceparents of a join's other parts, to be linked."""
        ...

    def compensating(self, agent: str, command: Envelope, step_id: str, undone: str | None) -> Processing:
        """An undo begins. `undone` is the traceparent of the step that is taken back, where that is known."""
        ...


class _Untraced:
    """Hands on the traceparent it was given, so that a trace survives a process that does not trace."""

    __slots__ = ("traceparent", "tracestate")

    def __init__(self, traceparent: str, tracestate: str | None) -> None:
        self.traceparent = traceparent
        self.tracestate = tracestate

    def sending(self, topic: str, event_id: EventId, flow_id: FlowId, causation_id: str | None) -> Sending:
        return self

    def acknowledged(self, receipt: Receipt) -> None:
        pass

    def failed(self, reason: str) -> None:
        pass

    def handling(self) -> AbstractContextManager[None]:
        return _NOTHING

    def attempt_failed(self, attempt: int, error: BaseException, *, last: bool) -> None:
        pass

    def held(self, because: str) -> None:
        pass

    def breaker_moved(self, state: str, breaker: str, because: str) -> None:
        pass

    def ended(self, outcome: Outcome, attempts: int, detail: str | None = None) -> None:
        pass


_NOTHING = nullcontext()


class Untraced:
    """Records nothing and keeps every traceparent whole."""

    observes = False

    def started(self, flow_id: FlowId, event_type: str, business_key: str | None, foreign: str | None) -> Sender:
        return _Untraced(root_traceparent(flow_id), None)

    def processing(
        self, agent: str, delivery: Delivery, envelope: Envelope, step_id: str, queued_ms: float, beside: Sequence[str] = ()
    ) -> Processing:
        found = envelope.traceparent
        # Only who knows nothing of choreographies can have made a span of another trace; the others are spared the hash.
        if found is not None and (envelope.choreography or continues_flow(found, envelope.flow_id)):
            return _Untraced(found, envelope.tracestate)
        return _Untraced(root_traceparent(envelope.flow_id), None)

    def compensating(self, agent: str, command: Envelope, step_id: str, undone: str | None) -> Processing:
        return _Untraced(root_traceparent(command.flow_id), None)


_TRACEPARENT: Final = re.compile(r"00-[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


def continues_flow(traceparent: str, flow: FlowId) -> bool:
    """Whether it names a span of the flow's own trace; what a foreign client sent along, or nobody can read, does not."""
    return traceparent[3:35] == trace_id_of(flow) and _TRACEPARENT.fullmatch(traceparent) is not None


UNOBSERVED: Sending = _Untraced("", None)
"""For a record that is no event of the flow: a dead letter, a journal record."""
