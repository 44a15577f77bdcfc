"""How far a partition is done: only the contiguous prefix of what was fetched may be committed."""

from __future__ import annotations

from collections import deque


class Watermark:
    """Offsets in hand of one partition. Offsets may have gaps (compaction, transaction markers): the order of fetching counts."""

    __slots__ = ("_done", "_in_hand", "committed", "position")

    def __init__(self) -> None:
        self._in_hand: deque[int] = deque()
        self._done: dict[int, int] = {}
        """How often each offset behind the head is done: what a source went back to is in hand twice."""
        self.position: int | None = None
        """The next offset to read after a crash: everything before it is done. None while nothing is."""
        self.committed: int | None = None

    def taken(self, offset: int) -> None:
        self._in_hand.append(offset)

    def done(self, offset: int) -> None:
        in_hand, done = self._in_hand, self._done
        if not in_hand or in_hand[0] != offset:
            done[offset] = done.get(offset, 0) + 1
            return
        in_hand.popleft()
        position = offset + 1
        while in_hand and in_hand[0] in done:
            position = in_hand.popleft()
            if done[position] == 1:
                del done[position]
            else:
                done[position] -= 1
            position += 1
        self.position = position

    @property
    def uncommitted(self) -> bool:
        return self.position is not None and self.position != self.committed
