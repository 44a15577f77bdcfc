"""When what has no answer is sent again: soon at first, then less and less often, each flow on its own."""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import Final

from maypole.schemas.identifiers import FlowId

FIRST_SECONDS: Final = 3.0
LONGEST_SECONDS: Final = 60.0


class Resending:
    """By any clock that only goes forward, in seconds. Nothing is decided by it: a command that is sent twice is one."""

    def __init__(self) -> None:
        self._waits: dict[FlowId, tuple[float, int]] = {}
        """When a flow's turn comes, and how often it had one."""
        self._heap: list[tuple[float, FlowId]] = []

    def __contains__(self, flow: FlowId) -> bool:
        return flow in self._waits

    def __len__(self) -> int:
        return len(self._waits)

    def put(self, flow: FlowId, at: float, turns: int = 0) -> None:
        self._waits[flow] = at, turns
        heappush(self._heap, (at, flow))

    def again(self, flow: FlowId, now: float) -> None:
        """It was sent now; its next turn comes later than the one before."""
        turns = self._waits.get(flow, (0.0, 0))[1]
        self.put(flow, now + min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(turns, 16)), turns + 1)

    def drop(self, flow: FlowId) -> None:
        self._waits.pop(flow, None)

    def due(self, now: float, limit: int) -> list[FlowId]:
        """At most so many flows whose turn it is; each has to be put again or dropped."""
        found: list[FlowId] = []
        while self._heap and len(found) < limit and self._heap[0][0] <= now:
            at, flow = heappop(self._heap)
            known = self._waits.get(flow)
            if known is not None and known[0] == at:
                found.append(flow)
                self._waits[flow] = inf, known[1]  # it may lie in the heap more than once
        return found

    def next_at(self) -> float | None:
        return self._heap[0][0] if self._heap else None
