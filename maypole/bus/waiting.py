"""Flows of which a step waits on a retry topic, so that their later events wait behind it while other flows go on.

Each event that waits names those it waits behind, the one that came last before it: a chain, so nobody waits in a circle,
and whoever reads the record needs no memory of the flow, only the rows of the steps that it names. Memory holds the end of
each chain, where the flow's next event joins it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from maypole.bus.ledger.port import Row
from maypole.bus.ledger.step import Turn
from maypole.bus.moves import Move, Moved, Origin, excused_in, moved_of
from maypole.bus.retry import hop
from maypole.bus.work import Work
from maypole.schemas.identifiers import FlowId, StepId
from maypole.schemas.topics import retry_topic

LOOK_AGAIN_MS: Final = 1_000
"""An event whose turn has not come is not looked at again sooner: the step before it may be in work elsewhere."""

Rows = Callable[[Collection[StepId]], Awaitable[Mapping[StepId, Row]]]


class Waiting:
    """For one agent; asked by one lane at a time about each flow."""

    def __init__(self, agent: str, delays: Sequence[float], rows: Rows, now_ms: Callable[[], int]) -> None:
        """`delays`, in seconds, are those of the agent's retry topics."""
        self._agent = agent
        self._delays = delays
        self._rows = rows
        self._now_ms = now_ms
        self.flows: dict[FlowId, dict[StepId, Origin]] = {}
        """By flow that waits, the steps that its next event waits behind. One, except where a takeover found several and no order."""
        self._leaving: dict[StepId, FlowId] = {}
        """At their end here, and on their way in the order of their lane, though their rows do not say yet that they have left."""

    def learn(self, rows: Iterable[Row]) -> None:
        """What waits already when partitions are taken over."""
        for row in rows:
            moved = moved_of(row)
            if moved is not None and not moved.move.replays:
                self.flows.setdefault(row.place.flow_id, {})[row.step_id] = moved.move.origin
                # What had ended here may not have left, and nothing of an earlier ownership will.
                self.left(row.step_id)

    def concerns(self, work: Work) -> bool:
        # Nearly always nothing waits at all.
        return work.move is not None or (bool(self.flows) and work.envelope is not None and work.envelope.flow_id in self.flows)

    def until_retry(self, work: Work, seconds: float) -> Moved:
        """Where the next attempt waits after one that failed now; and behind whom, should what came before it here not leave."""
        assert work.envelope is not None
        flow = work.envelope.flow_id
        behind = tuple(step for step, leaving in self._leaving.items() if leaving == flow and step != work.step)
        move = self._move(work)
        due_ms = self._now_ms() + int(seconds * 1000) + 1
        return Moved(self._topic(seconds), move._replace(attempt=work.attempts + 1, due_ms=due_ms, behind=behind, excused=work.excused))

    def again_after(self, move: Move, seconds: float) -> Moved:
        """Where a step whose turn has come waits on, because its handler may not be called yet."""
        return Moved(self._topic(seconds), move._replace(due_ms=self._now_ms() + max(LOOK_AGAIN_MS, int(seconds * 1000))))

    async def until_turn(self, work: Work) -> Moved | None:
        """Where a step that was not begun waits on; None: its turn has come."""
        now_ms = self._now_ms()
        if work.move is not None and now_ms < work.move.due_ms:
            return Moved(self._topic((work.move.due_ms - now_ms) / 1000), work.move)
        named = self._before(work) if work.move is None else work.move.behind
        return self._behind(work, await self._unfinished(work, named), now_ms)

    async def until_told(self, work: Work) -> Moved | None:
        """Where a step that has ended waits on until it is told: only behind those that lay before it where it came from."""
        assert work.row is not None
        if work.row.step.turn is Turn.OVER:
            return None
        stands = moved_of(work.row)
        if stands is not None:
            named = stands.move.behind
        elif work.move is not None:
            named = work.move.behind
        else:
            topic, partition, offset = work.delivery[:3]
            named = tuple(step for step, origin in self._ends(work).items() if origin[:2] == (topic, partition) and origin.offset < offset)
        return self._behind(work, await self._unfinished(work, named), self._now_ms())

    def _behind(self, work: Work, before: Sequence[Row], now_ms: int) -> Moved | None:
        if not before:
            return None
        places = [moved for row in before if (moved := moved_of(row)) is not None]
        last = max(places, key=lambda moved: moved.move.due_ms, default=None)
        due_ms = now_ms + LOOK_AGAIN_MS if last is None else max(last.move.due_ms, now_ms + LOOK_AGAIN_MS)
        move = self._move(work)._replace(due_ms=due_ms, behind=tuple(row.step_id for row in before))
        return Moved(self._topic(0) if last is None else last.topic, move)

    def waits(self, work: Work, moved: Moved) -> None:
        """It is written down that the step waits there."""
        assert work.envelope is not None
        if moved.move.replays:
            return  # a record that is run again by hand takes its flow's order from nobody
        ends = self.flows.setdefault(work.envelope.flow_id, {})
        if work.move is None:
            for step in moved.move.behind:
                ends.pop(step, None)
        # What comes back by its copy has its place in the chain, and may be no end of it.
        if work.move is None or not ends:
            ends[work.step] = moved.move.origin

    def ends(self, work: Work) -> None:
        """The step came to its end here. The flow goes on at once, as in a lane; its row follows."""
        if self.concerns(work):
            assert work.envelope is not None
            self._leaving[work.step] = work.envelope.flow_id
            self._forget(work.envelope.flow_id, [work.step])

    def left(self, step: StepId) -> None:
        """To be called once a step's row says that it has left, or it begins again."""
        self._leaving.pop(step, None)

    def _move(self, work: Work) -> Move:
        if work.move is not None:
            return work.move
        delivery = work.delivery
        attempt = 1 if work.row is None else work.row.step.attempt + 1
        origin = Origin(delivery.topic, delivery.partition, delivery.offset)
        return Move(origin, delivery.timestamp_ms, attempt, 0, excused=excused_in(work.row))

    def _topic(self, seconds: float) -> str:
        return retry_topic(self._agent, hop(self._delays, seconds)).name

    async def _unfinished(self, work: Work, named: Sequence[StepId]) -> Sequence[Row]:
        """The rows of those steps, of the ones named, that this one still waits behind."""
        assert work.envelope is not None
        asked = [step for step in named if step != work.step and step not in self._leaving]
        if not asked:
            return ()
        rows = await self._rows(asked)
        before = [row for step in asked if (row := rows.get(step)) is not None and row.step.waits]
        still = {row.step_id for row in before}
        self._forget(work.envelope.flow_id, [step for step in asked if step not in still])
        return before

    def _before(self, work: Work) -> Sequence[StepId]:
        """Not those that lay behind it where it came from: a crash may bring back what came before a step that waits."""
        topic, partition, offset = work.delivery[:3]
        return tuple(step for step, origin in self._ends(work).items() if origin[:2] != (topic, partition) or origin.offset < offset)

    def _ends(self, work: Work) -> Mapping[StepId, Origin]:
        assert work.envelope is not None
        return self.flows.get(work.envelope.flow_id, {})

    def _forget(self, flow: FlowId, steps: Iterable[StepId]) -> None:
        ends = self.flows.get(flow)
        if ends is not None:
            for step in steps:
                ends.pop(step, None)
            if not ends:
                del self.flows[flow]
