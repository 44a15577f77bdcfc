"""Where parts become a step: each part is in the ledger before its offset may be committed, and the last one runs the handler.

A part that does not complete its join has nothing more to do. The delivery of the last part is the join's step: it comes
again until the step's row says how it ended, so none of the others needs to. Which part was the last is the ledger's word.

The flow's rounds are told apart: a second event of a type belongs to the next round of the join. Parts that an agent outside the
choreography made are gathered by themselves: nobody waits for what comes of them, so they must not complete what is waited for.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import count
from typing import Final

from maypole.bus.admission import Admission
from maypole.bus.dead_letters import Reason
from maypole.bus.expiring import Expiring
from maypole.bus.ledger.port import Join, Joins, JoinState, Part, Place
from maypole.bus.memos import Patiently
from maypole.bus.parts import Joined, envelope_of, joined, kept
from maypole.bus.ports import Delivery, Sink, TopicPartition
from maypole.bus.subscription import Subscription, by_topic
from maypole.bus.work import Failure, Work
from maypole.schemas.envelope import Envelope
from maypole.schemas.errors import ContractRefused
from maypole.schemas.identifiers import FlowId, StepId, awaited_trigger, derive, joined_trigger, step_id_of

log = logging.getLogger("maypole.bus.gathering")


class JoinExpired(TimeoutError):
    """The parts of a join did not come within its time. Names those that are missing."""


class Gathering:
    """The joins of one agent. Asked by one lane at a time about each flow, except for records whose key is not their flow's id."""

    def __init__(
        self,
        agent: str,
        subscriptions: Sequence[Subscription],
        ledger: Joins,
        patiently: Patiently,
        admission: Admission,
        sink: Sink,
        now: Callable[[], float],
    ) -> None:
        """`now` gives seconds since the epoch."""
        self._agent = agent
        self._subscriptions = by_topic(each for each in subscriptions if each.is_join)
        self._ledger = ledger
        self._patiently = patiently
        self._admission = admission
        self._expiring = Expiring(agent, ledger, patiently, sink, now)
        self._may_expire = any(each.within_ms is not None for each in subscriptions)
        self.topics: Final = frozenset(self._subscriptions)
        """Those whose events are parts."""
        self.late: Counter[str] = Counter()
        """Parts since the start that came after their join's step had ended without them, by type."""

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Take over the joins that wait there."""
        if self._may_expire:
            await self._expiring.assigned(partitions)

    async def watch(self) -> None:
        """Tell the journal of joins whose time is up, until cancelled."""
        if self._may_expire:
            await self._expiring.run()

    async def gather(self, work: Work) -> bool:
        """Keep the part. True where `work` is the join's step from here on, with its name, its parents and its events, or why it fails.

        False: nothing is left of it but its commit, and its dead letter if it failed.
        """
        envelope, membership, topic = work.envelope, work.membership, work.delivery.topic
        assert envelope is not None
        if membership is None or envelope.type != topic:
            return False  # which flow or which join it belongs to cannot be told
        subscription = self._subscriptions[topic]
        join = await self._put(work, envelope, subscription, observed=not membership.takes_part)
        if self._completed_by(work, join, envelope):
            self._expiring.forget(join.join_id)
            await self._begin(work, subscription, join, joined(join, subscription.event_types, topic))
            return True
        if join.state is JoinState.EXPIRED and self._runs_expiry(work, subscription, join):
            held = join if join.parts else join._replace(parts={topic: self._part(work, envelope, subscription, join.join_id, 0)})
            await self._begin(work, subscription, held, joined(held, subscription.event_types, topic, expired=True))
            return True
        if work.failure is not None and subscription.within_ms is not None and membership.takes_part:
            # The step has its name already, and nothing could come of it any more.
            join = await self._patiently(lambda: self._ledger.expire_join(join.join_id, join.place))
            if join.state is JoinState.EXPIRED and topic in join.parts:
                self._expiring.forget(join.join_id)
                self._name(work, subscription, join, joined(join, subscription.event_types, topic))
                return True
        self._left(work, subscription, join, envelope)
        return False

    def _runs_expiry(self, work: Work, subscription: Subscription, join: Join) -> bool:
        """The command has sent a part once more, to run what is done then; or there was none to send, and this is the first."""
        if not join.parts:
            return subscription.expiry is not None
        return work.delivery.topic in join.parts and work.move is not None

    async def _put(self, work: Work, envelope: Envelope, subscription: Subscription, *, observed: bool) -> Join:
        """In the first round that has no other event of this type."""
        delivery = work.delivery
        due_ms = 0 if observed or subscription.within_ms is None else delivery.timestamp_ms + subscription.within_ms
        for iteration in count():
            join_id = join_id_of(envelope.flow_id, self._agent, subscription, iteration, observed=observed)
            part = self._part(work, envelope, subscription, join_id, due_ms)
            [join] = await self._patiently(lambda part=part: self._ledger.join([part]))  # type: ignore[misc]
            mine = join.parts.get(delivery.topic)
            if mine is None or mine.event_id == envelope.event_id:
                break
        return join

    def _part(self, work: Work, envelope: Envelope, subscription: Subscription, join_id: str, due_ms: int) -> Part:
        delivery = work.delivery
        place = Place(envelope.flow_id, TopicPartition(delivery.topic, delivery.partition))
        return Part(join_id, place, delivery.topic, envelope.event_id, kept(delivery, due_ms), len(subscription.triggers))

    def _completed_by(self, work: Work, join: Join, envelope: Envelope) -> bool:
        if join.state is not JoinState.FIRED:
            return False
        # A part that was redriven runs the join again, whichever it was.
        return join.completed_by == envelope.event_id or (work.move is not None and work.move.replays > 0)

    async def _begin(self, work: Work, subscription: Subscription, join: Join, step: Joined) -> None:
        self._name(work, subscription, join, step)
        if step.expired and subscription.expiry is None and work.failure is None:
            missing = ", ".join(each for each in subscription.event_types if each not in step.parts)
            work.failure = Failure(Reason.EXPIRED, JoinExpired(f"{missing} did not come in time"))
        events = {work.delivery.topic: work.event}
        for part in step.parts.values():
            if part.topic not in events and work.failure is None:
                events[part.topic] = await self._opened(work, part)
        work.event = tuple(events.get(event_type) for event_type in subscription.event_types)

    def _name(self, work: Work, subscription: Subscription, join: Join, step: Joined) -> None:
        envelope = work.envelope
        assert envelope is not None
        work.joined = step
        if subscription.within_ms is not None:
            trigger_step = StepId(join.join_id)
        else:
            trigger = joined_trigger(step.parents)
            trigger_step = step_id_of(envelope.flow_id, self._agent, subscription.name, trigger)
        replays = 0 if work.move is None else work.move.replays
        work.step = trigger_step if not replays else StepId(derive("redriven", trigger_step, str(replays)))
        others = [found for part in step.others if (found := envelope_of(part)) is not None]
        work.envelope = envelope._replace(
            state_version=max([envelope.state_version, *(other.state_version for other in others)]),
            business_key=next((each.business_key for each in (envelope, *others) if each.business_key is not None), None),
        )

    async def _opened(self, work: Work, part: Delivery) -> object:
        """The event of another part, which was admitted when it came; None, and `work` fails, where it was refused."""
        probe = Work(part, work.ownership, work.lane)
        self._admission.admit([probe])
        probe.membership = work.membership
        if probe.event is None and probe.failure is None:
            await self._admission.complete(probe)
        if probe.failure is not None:
            rule = f"a part that the join can use ({probe.failure.error})"
            work.failure = Failure(Reason.CONTRACT_REFUSED, ContractRefused(field=part.topic, value=None, rule=rule))
        return probe.event

    def _left(self, work: Work, subscription: Subscription, join: Join, envelope: Envelope) -> None:
        about = {
            "agent": self._agent, "subscription": subscription.name, "flow_id": envelope.flow_id, "event_id": envelope.event_id,
            "topic": work.delivery.topic, "partition": work.delivery.partition, "offset": work.delivery.offset,
        }  # fmt: skip
        if work.failure is None:
            work.leaves_nothing()
        if work.delivery.topic not in join.parts:
            self.late[work.delivery.topic] += 1
            why = "the step has ended without it: the join's time was up, or another part was refused"
            log.warning("join.part_late", extra={**about, "why": why})
        elif join.state is JoinState.OPEN:
            self._expiring.watch(join)
            missing = sorted(set(subscription.event_types) - join.parts.keys())
            log.debug("join.part_kept", extra={**about, "waits_for": missing})


def join_id_of(flow: FlowId, agent: str, subscription: Subscription, iteration: int, *, observed: bool = False) -> str:
    """Of a join that may expire, its step's id too. `iteration` counts from 0 how often the flow has come to this join before."""
    step = step_id_of(flow, agent, subscription.name, awaited_trigger(iteration))
    return derive("observed", step) if observed else step
