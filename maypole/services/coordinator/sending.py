"""What a coordinator sends of one partition: commands, until they are answered; ends, once; deadlines that have passed.

Everything here follows from what is kept and may be sent any number of times, by any number of coordinators.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from maypole.bus.bus import EnsureTopics
from maypole.bus.ports import BrokerUnreachable, Cluster, PublishRefused, Record, Sink, TopicPartition
from maypole.schemas.identifiers import FlowId
from maypole.schemas.topics import JOURNAL, commands
from maypole.services.coordinator.broker_clock import BrokerClock
from maypole.services.coordinator.folding import Counts, Folding, Known
from maypole.services.coordinator.messages import Messages
from maypole.services.coordinator.reasons import reason_of
from maypole.services.coordinator.resending import FIRST_SECONDS
from maypole.services.coordinator.traces import traceparent_of
from maypole.services.coordinator.width import lies_elsewhere
from maypole.services.saga import Command, outstanding

log = logging.getLogger("maypole.services.coordinator")

_FLOWS_MAX: Final = 500
"""In one round, so that folding goes on in between."""
_SEND_SECONDS: Final = 10.0
_ASK_AGAIN_SECONDS: Final = 1.0
_PUT_OFF_MS: Final = 60_000
"""What is due and cannot be read comes up again after so long. Whoever learns its choreography does not wait for that, but who takes
the partition over and has always known it does."""


class Sending:
    def __init__(
        self,
        folding: Folding,
        sink: Sink,
        cluster: Cluster,
        ensure: EnsureTopics,
        messages: Messages,
        clock: BrokerClock,
        counts: Counts,
        complained: set[str],
        width: int,
    ) -> None:
        """`complained` holds the agents of which it was said that no command reaches them; `width`: partitions of the journal."""
        self._folding = folding
        self._sink = sink
        self._cluster = cluster
        self._ensure = ensure
        self._messages = messages
        self._clock = clock
        self._counts = counts
        self._complained = complained
        self._width = width
        self._noticed: tuple[int, int] | None = None
        """Deadlines have passed at this time; the journal ended here then."""
        self._unanswered = False
        """The broker did not say where the journal ends."""
        self._fired_before = 0
        """What was fired is read back before this offset."""

    async def tell(self, now: float) -> None:
        """What is due to be said now, in a partition that was saved. `now` is the clock of `Resending`."""
        folding = self._folding
        if not folding.is_live:
            return
        folding.asked_from(self._clock.now_ms())
        fresh, folding.fresh = folding.fresh, []
        again = folding.resending.due(now, _FLOWS_MAX)
        known = await folding.opened({*again, *(command.flow_id for command in fresh)})
        told = [command for command in fresh if command.flow_id in known and command in outstanding(known[command.flow_id].saga)]
        ends: list[Known] = []
        for flow in again:
            found = known.get(flow)
            asked = list(outstanding(found.saga)) if found is not None else []
            if found is not None and found.has_untold_end:
                ends.append(found)
            if found is None or not (asked or found.has_untold_end):
                folding.resending.drop(flow)
                continue
            told += asked
            folding.resending.again(flow, now)
        for command in fresh:
            folding.resending.put(command.flow_id, now + FIRST_SECONDS, 1)
        if told:
            await self._command(list(dict.fromkeys(told)), known)
        if ends:
            await self._end(ends)

    def pause(self, now: float) -> float | None:
        """Seconds until something is due to be sent that no record will tell of."""
        folding = self._folding
        if not folding.is_live:
            return None
        again = folding.resending.next_at()
        waits = [] if again is None else [again - now]
        if folding.next_due is not None and self._noticed is None and folding.next >= self._fired_before:
            seconds = (folding.next_due - self._clock.now_ms()) / 1000
            waits.append(max(seconds, _ASK_AGAIN_SECONDS) if self._unanswered else seconds)
        return max(0.0, min(waits)) if waits else None

    async def fire(self) -> None:
        """Append what is due. Only in a partition that was saved, and only once everything is folded that may have come before."""
        folding = self._folding
        if not folding.is_live or folding.next < self._fired_before or folding.next_due is None:
            return
        if self._noticed is None:
            until_ms = self._clock.now_ms()
            if folding.next_due > until_ms:
                return
            at = TopicPartition(JOURNAL, folding.partition)
            try:
                self._noticed = until_ms, (await self._cluster.watermarks([at]))[at][1]
            except BrokerUnreachable:
                self._unanswered = True
                return  # without its answer nobody knows what came first
            self._unanswered = False
        until_ms, end = self._noticed
        if folding.next < end:
            return
        self._noticed = None
        await self._fire(until_ms)

    async def _fire(self, until_ms: int) -> None:
        folding = self._folding
        records: list[Record] = []
        flows = await folding.store.due(folding.partition, until_ms, _FLOWS_MAX)
        # Of what lies elsewhere nothing would be read back here: it would be fired for ever, and hold up everybody else.
        opened = await folding.opened([flow for flow in flows if not lies_elsewhere(flow, folding.partition, self._width)])
        for flow, known in opened.items():
            due = [deadline for at_ms, deadline in folding.fires_at(known) if at_ms <= until_ms]
            records += [self._messages.deadline_fired(deadline, known.saga, known.subject) for deadline in due]
            if not due:
                folding.touch(flow)  # kept under another patience, or before it was asked for: it is worked out anew
        hidden = [flow for flow in flows if flow not in opened]
        if hidden:
            # They would be the first again in the next round, and the one after it; enough of them would hide everybody else.
            await folding.put_off(hidden, self._clock.now_ms() + _PUT_OFF_MS)
        if records:
            receipts = await self._sink.publish(records)
            self._fired_before = max(folding.next, *(receipt.offset for receipt in receipts)) + 1
            self._counts.deadlines += len(records)
        await folding.look_for_next_due()

    async def _command(self, told: Sequence[Command], known: Mapping[FlowId, Known]) -> None:
        by_agent: dict[str, list[Record]] = {}
        for command in told:
            of = known[command.flow_id]
            traceparent = traceparent_of(command.flow_id, of.traces, command.step_id)
            by_agent.setdefault(command.agent, []).append(self._messages.command(command, of.saga, of.subject, traceparent))
        await asyncio.gather(*(self._send(agent, records) for agent, records in by_agent.items()))

    async def _send(self, agent: str, records: Sequence[Record]) -> None:
        """An agent that cannot be told is one matter, and all others are another."""
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                await self._ensure([commands(agent)])
                await self._sink.publish(records)
        except (PublishRefused, PermissionError, ConnectionError, TimeoutError) as error:
            if agent not in self._complained:
                then = "its commands are sent again until they are answered"
                log.error("coordinator.agent_unreachable", extra={"agent": agent, "error": str(error) or "no answer", "then": then})
            self._complained.add(agent)
            return
        self._complained.discard(agent)
        self._counts.commands += len(records)

    async def _end(self, ends: Collection[Known]) -> None:
        """First for whoever reacts, then in the journal: what the journal says was told has been told."""
        told = [self._messages.ended(each.saga, each.subject, reason_of(each.saga), each.ended_ms or 0) for each in ends]
        await self._sink.publish([event for event, _ in told])
        await self._sink.publish([record for _, record in told])
        for each in ends:
            each.told = each.saga.state.value
            self._folding.touch(each.saga.flow_id)
            self._folding.resending.drop(each.saga.flow_id)
        self._counts.ends += len(ends)
