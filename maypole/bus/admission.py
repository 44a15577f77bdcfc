"""From bytes to an event that may be handled: envelope, membership, contract, and what the subscriber requires.

A batch is admitted stage by stage, each a short loop over all of it. Done record by record, the same calls cost almost
three times as much: a processor that goes round a small loop predicts it, one that walks the whole path each time does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from maypole.bus.contracts import Contracts
from maypole.bus.dead_letters import Reason
from maypole.bus.interruption import raised_by_a_signal
from maypole.bus.membership import IdempotencyConflict, Membership, Memberships, UnknownChoreography
from maypole.bus.memos import Patiently
from maypole.bus.moves import RETRY_TOPIC
from maypole.bus.subscription import Subscription, by_topic
from maypole.bus.work import Failure, Work
from maypole.schemas.codec import Reader, schema_id_of
from maypole.schemas.envelope import TYPE, Envelope, read_envelope, read_identity
from maypole.schemas.errors import ContractRefused, Undecodable
from maypole.schemas.identifiers import EventId, step_id_of


class Admission:
    """Admits what one agent gets. `admit` does what needs no waiting, `complete` the rest, for one record."""

    def __init__(
        self, agent: str, subscriptions: Sequence[Subscription], contracts: Contracts, memberships: Memberships, patiently: Patiently
    ) -> None:
        self._agent = agent
        self._subscriptions: Mapping[str, Subscription] = by_topic(subscriptions)
        self._names = {topic: each.name for topic, each in self._subscriptions.items()}
        self._triggers = {trigger.event_type: trigger for each in subscriptions for trigger in each.triggers}
        self._contracts = contracts
        self._memberships = memberships
        self._patiently = patiently
        self._readers: dict[tuple[str, int], Reader[Any]] = {}

    def admit(self, works: Sequence[Work]) -> None:
        """Leaves envelope, step, membership and event in each work, as far as they can be told at once, or why it failed."""
        for work in works:
            self._read(work)
        readable = [work for work in works if work.failure is None]
        names, agent, known = self._names, self._agent, self._memberships.known
        for work in works:
            envelope = work.envelope
            if envelope is None:
                continue
            topic = work.delivery.topic
            name = names[topic]
            work.counted = step = step_id_of(envelope.flow_id, agent, name, _trigger(work, envelope))
            if name == topic:
                work.step = step
            work.membership = known(envelope, name)
        for work in readable:
            reader = self._known_reader(work)
            if reader is not None and work.membership is not None and not self.skips(work):
                self._decode(work, reader)

    async def complete(self, work: Work) -> None:
        """What had to be asked for: who started the flow, which choreography it is pinned to, what a schema id means."""
        delivery, envelope = work.delivery, work.envelope
        assert envelope is not None
        try:
            if work.membership is None:
                work.membership = await self._membership(work, envelope)
            if self.skips(work):
                return
            schema_id = schema_id_of(delivery.value)
            reader = await self._contracts.reader(self._triggers[delivery.topic].event_class, schema_id)
            self._readers[delivery.topic, schema_id] = reader
            self._decode(work, reader)
        except Undecodable as error:
            work.failure = Failure(Reason.UNDECODABLE, error)
        except ContractRefused as error:
            work.failure = Failure(Reason.CONTRACT_REFUSED, error)
        except IdempotencyConflict as error:
            work.failure = Failure(Reason.IDEMPOTENCY_CONFLICT, error)
        except UnknownChoreography as error:
            work.failure = Failure(Reason.UNKNOWN_FLOW, error)

    async def place(self, work: Work) -> None:
        """Find out whether the agent takes part in the flow of a record that failed already, so that its journal can say so."""
        envelope = work.envelope
        assert envelope is not None
        try:
            work.membership = await self._membership(work, envelope)
        except (IdempotencyConflict, UnknownChoreography, ContractRefused):
            return  # which flow it belongs to cannot be told; the dead letter says what there is to say

    async def _membership(self, work: Work, envelope: Envelope) -> Membership:
        """A record that is in hand waits for a broker that is away, as those do that are not."""
        delivery = work.delivery
        return await self._patiently(lambda: self._memberships.of(envelope, self._names[delivery.topic], delivery.value))

    def skips(self, work: Work) -> bool:
        """A subscription that acts on the outside does not act for a flow that it only observes."""
        membership = work.membership
        return membership is not None and not membership.takes_part and self._subscriptions[work.delivery.topic].kind.acts_outside

    def _read(self, work: Work) -> None:
        delivery = work.delivery
        if work.failure is not None:
            return
        if delivery.topic not in self._subscriptions:
            rule = f"a retry of an event that {self._agent} subscribes to"
            work.failure = Failure(Reason.CONTRACT_REFUSED, ContractRefused(field=RETRY_TOPIC, value=delivery.topic, rule=rule))
            return
        try:
            work.envelope = envelope = read_envelope(delivery.headers)
        except Undecodable as error:
            work.failure = Failure(Reason.UNDECODABLE, error)
            work.envelope = read_identity(delivery.headers)
            return
        if envelope.type != delivery.topic:
            rule = f"one event type per topic: {delivery.topic}"
            work.failure = Failure(Reason.CONTRACT_REFUSED, ContractRefused(field=TYPE, value=envelope.type, rule=rule))

    def _known_reader(self, work: Work) -> Reader[Any] | None:
        delivery = work.delivery
        value = delivery.value
        # The id behind the first byte; bytes that have none are refused by `complete`, which explains itself.
        return None if value is None else self._readers.get((delivery.topic, int.from_bytes(value[1:5], "big")))

    def _decode(self, work: Work, reader: Reader[Any]) -> None:
        value = work.delivery.value
        assert value is not None
        try:
            schema_id_of(value)
            work.event = event = reader.decode(value)
            for requirement in self._triggers[work.delivery.topic].requires:
                requirement.check(event)
        except Undecodable as error:
            work.failure = Failure(Reason.UNDECODABLE, error)
        except ContractRefused as error:
            work.failure = Failure(Reason.CONTRACT_REFUSED, error)
        except BaseException as error:
            # A validator is the user's code. What it raises refuses the event, and does not end the process.
            if isinstance(error, Exception) or raised_by_a_signal(error):
                raise
            rule = f"a value that its validators accept ({type(error).__name__}: {error})"
            work.failure = Failure(Reason.CONTRACT_REFUSED, ContractRefused(field="", value=None, rule=rule))


def _trigger(work: Work, envelope: Envelope) -> EventId:
    """A record that was redriven runs again although its step has failed: another round of the same event, as in a loop."""
    if work.move is None or not work.move.replays:
        return envelope.event_id
    return EventId(f"{envelope.event_id}/{work.move.replays}")
