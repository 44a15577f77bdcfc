"""Starting flows from any program: `async with Bus.connect() as bus: await bus.publish(event)`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from maypole.bus.catalog import Catalog
from maypole.bus.contracts import Contracts
from maypole.bus.flow_starts import FlowStarts
from maypole.bus.hook import Tracing
from maypole.bus.journal import JournalRecords
from maypole.bus.membership import DEADLINE_MS_DEFAULT, IdempotencyConflict
from maypole.bus.ports import Headers, Record, Sink
from maypole.bus.record_sizes import VALUE_BYTES_MAX
from maypole.schemas.avro import schema_of
from maypole.schemas.envelope import TEXT_BYTES_MAX, Stamp, lineage, rfc3339
from maypole.schemas.errors import ContractRefused, TooLarge
from maypole.schemas.event import DEADLINE_SECONDS_MAX, Event
from maypole.schemas.identifiers import EventId, FlowId, digest_of, flow_id_of, new_flow_id, root_event_id, trace_id_of
from maypole.schemas.journal import FlowStarted, Produced
from maypole.schemas.topics import Topic, event_topic
from maypole.settings import Settings

EnsureTopics = Callable[[Collection[Topic]], Awaitable[None]]
"""Creates those that are missing."""

PLATFORM_PREFIX: Final = "maypole."


@dataclass(frozen=True, slots=True)
class Published:
    """A flow that was started. `subscribers` are the agents that the flow's root reaches first; none: nobody will ever answer."""

    flow_id: FlowId
    event_id: EventId
    trace_id: str
    topic: str
    partition: int
    offset: int
    choreography: str
    subscribers: tuple[str, ...]


class Bus:
    """Publishes root events. Made by `Bus.connect`; safe to share between tasks."""

    def __init__(
        self,
        publisher: str,
        sink: Sink,
        catalog: Catalog,
        contracts: Contracts,
        starts: FlowStarts,
        tracing: Tracing,
        now: Callable[[], float],
        ensure: EnsureTopics,
    ) -> None:
        self._source = f"/publishers/{quote(publisher, safe='')}"
        self._sink = sink
        self._catalog = catalog
        self._contracts = contracts
        self._starts = starts
        self._tracing = tracing
        self._now = now
        self._ensure = ensure
        self._topics: set[str] = set()
        self._records = JournalRecords(self._source)
        self._stamps: dict[str, Stamp] = {}

    @staticmethod
    @asynccontextmanager
    async def connect(settings: Settings | None = None, *, publisher: str | None = None) -> AsyncIterator[Bus]:
        """Connect as the environment says (`MAYPOLE_KAFKA` and so on), or as `settings` say.

        `publisher` is who the events come from; the program's name by default. Leaving waits for every
        acknowledgement and exports the spans. Raises `BrokerUnreachable` and `WrongSetting`.
        """
        from maypole.bus.composition import open_bus  # the one place that knows concrete transports; they are slow to import

        async with open_bus(settings, publisher or Path(sys.argv[0]).stem or "python") as bus:
            yield bus

    async def publish(
        self,
        event: Event,
        *,
        business_key: str | None = None,
        idempotency_key: str | None = None,
        deadline_seconds: float | None = None,
    ) -> Published:
        """Start a flow and wait until the broker has it.

        The same `idempotency_key` always gives the same ids, so that agents act once however often this is called.
        `deadline_seconds`: how long the flow may take, at most seven days; without it what the event's type declares, and an hour where it
        does not.
        Raises `IdempotencyConflict` when the key already started a flow with another event, TypeError for what is no event, and
        `ContractRefused` for a key that is no printable text of 1 to 1,024 bytes in UTF-8.
        """
        if not isinstance(event, Event):
            raise TypeError(f"expected an event, an instance of a class like AskedFor(Event, type='asked.for'), found {event!r}")
        event_type = type(event).event_type
        writer = await self._contracts.writer(type(event))
        schema = schema_of(type(event))
        await self._catalog.announce_schemas({schema.derived_id: schema.text})
        if deadline_seconds is None:
            deadline_seconds = type(event).deadline_seconds
        return await self.publish_value(
            event_type, writer.encode(event), business_key=business_key, idempotency_key=idempotency_key, deadline_seconds=deadline_seconds
        )

    async def publish_value(
        self,
        event_type: str,
        value: bytes,
        *,
        business_key: str | None = None,
        idempotency_key: str | None = None,
        deadline_seconds: float | None = None,
        notes: Headers = (),
        linked: str | None = None,
    ) -> Published:
        """As `publish`, for a value that is already in the wire format.

        `notes` are headers beside the envelope's; `linked` is the traceparent of what led to it, which becomes a link.
        """
        if event_type.startswith(PLATFORM_PREFIX):
            raise ContractRefused(
                field="type", value=event_type, rule="a domain event; the platform's own records are written by its runtime"
            )
        for name, key in (("business_key", business_key), ("idempotency_key", idempotency_key)):
            if key is not None and not (key and key.isprintable() and len(key.encode()) <= TEXT_BYTES_MAX):
                raise ContractRefused(field=name, value=key, rule=f"printable text of 1 to {TEXT_BYTES_MAX} bytes in UTF-8")
        if len(value) > VALUE_BYTES_MAX:
            raise TooLarge(event_type, len(value), VALUE_BYTES_MAX)
        if event_type not in self._topics:
            await self._ensure([event_topic(event_type)])
            self._topics.add(event_type)
        flow = new_flow_id() if idempotency_key is None else flow_id_of(event_type, idempotency_key)
        event_id = root_event_id(flow, event_type)
        digest = digest_of(value)
        # An agent that was announced before this call is part of the flow.
        await self._catalog.refresh()
        choreography = await self._catalog.pin(event_type)
        if deadline_seconds is None:
            deadline_seconds = self._catalog.view.deadline_seconds(event_type)
        if deadline_seconds is not None and deadline_seconds > DEADLINE_SECONDS_MAX:
            rule = f"at most {DEADLINE_SECONDS_MAX} s, so that a flow which gets stuck can be decided about while its journal is kept"
            raise ContractRefused(field="deadline_seconds", value=deadline_seconds, rule=rule)
        if idempotency_key is not None:
            first = await self._starts.first(flow)
            if first is not None:
                if first.digests.get(event_id) != digest:
                    raise IdempotencyConflict(
                        f"the idempotency key {idempotency_key!r} already started flow {flow} with another {event_type}; "
                        f"expected the same event, found a different one"
                    )
                # A repetition belongs to the flow as it was pinned first, whoever has joined since.
                choreography = await self._catalog.choreography(first.choreography) or choreography
        pinned = choreography.hash
        flow_bytes = flow.encode()
        common = lineage(
            flow_id=flow_bytes,
            time=rfc3339(self._now() * 1000).encode(),
            state_version=1,
            choreography=pinned.encode(),
            business_key=business_key,
        )
        started = FlowStarted(
            choreography=pinned,
            deadline_ms=DEADLINE_MS_DEFAULT if deadline_seconds is None else max(1, round(deadline_seconds * 1000)),
            roots=(Produced(event_id=event_id, type=event_type, digest=digest),),
        )
        sender = self._tracing.started(flow, event_type, business_key, linked)
        await self._sink.publish([self._records.record(started, flow, flow_bytes, sender.traceparent, sender.tracestate, common)])
        stamp = self._stamps.get(event_type) or self._stamps.setdefault(event_type, Stamp(event_type, self._source))
        sending = sender.sending(event_type, event_id, flow, None)
        headers = [*stamp.headers(event_id, sending.traceparent, sending.tracestate, common, idempotency_key), *notes]
        try:
            (receipt,) = await self._sink.publish([Record(event_type, flow_bytes, value, headers)])
        except BaseException as error:
            sending.failed(repr(error))
            raise
        sending.acknowledged(receipt)
        reactions = choreography.triggered_by(event_type)
        return Published(
            flow,
            event_id,
            trace_id_of(flow),
            event_type,
            receipt.partition,
            receipt.offset,
            pinned,
            tuple(reaction.agent for reaction in reactions),
        )
