"""The small hook through which a flow is observed. The bus declares it and never imports who implements it.

Implementations must neither raise nor wait: observation never stops or slows delivery.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

from maypole.bus.ports import Delivery, Receipt
from maypole.schemas.envelope import Envelope
from maypole.schemas.identifiers import EventId, FlowId, root_traceparent

Outcome = Literal["ok", "dead_letter", "revoked"]


class Sending(Protocol):
    """One record on its way. `traceparent` goes into its header."""

    traceparent: str
    tracestate: str | None

    def acknowledged(self, receipt: Receipt) -> None: ...

    def failed(self, reason: str) -> None: ...


class Sender(Protocol):
    def sending(self, topic: str, event_id: EventId, flow_id: FlowId, causation_id: str | None) -> Sending:
        """Begin to send one record, as a child of this."""
        ...


class Processing(Sender, Protocol):
    """One delivery, from the moment it is taken up until it is acknowledged."""

    traceparent: str
    """What journal records and dead letters about this delivery carry."""
    tracestate: str | None

    def handling(self) -> AbstractContextManager[None]:
        """Around the handler: what it observes by itself becomes a part of this delivery."""
        ...

    def attempt_failed(self, attempt: int, error: BaseException, retry_in_seconds: float | None) -> None: ...

    def ended(self, outcome: Outcome, attempts: int, detail: str | None = None) -> None: ...


class Tracing(Protocol):
    def started(self, flow_id: FlowId, event_type: str, business_key: str | None, foreign: str | None) -> Sender:
        """A flow begins here. `foreign` is the traceparent that a foreign client sent along, to be linked."""
        ...

    def processing(self, agent: str, delivery: Delivery, envelope: Envelope, step_id: str, queued_ms: float) -> Processing: ...


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

    def attempt_failed(self, attempt: int, error: BaseException, retry_in_seconds: float | None) -> None:
        pass

    def ended(self, outcome: Outcome, attempts: int, detail: str | None = None) -> None:
        pass


_NOTHING = nullcontext()


class Untraced:
    """Records nothing and keeps every traceparent whole."""

    def started(self, flow_id: FlowId, event_type: str, business_key: str | None, foreign: str | None) -> Sender:
        return _Untraced(root_traceparent(flow_id), None)

    def processing(self, agent: str, delivery: Delivery, envelope: Envelope, step_id: str, queued_ms: float) -> Processing:
        return _Untraced(envelope.traceparent or root_traceparent(envelope.flow_id), envelope.tracestate)


UNOBSERVED: Sending = _Untraced("", None)
"""For a record that is no event of the flow: a dead letter, a journal record."""
