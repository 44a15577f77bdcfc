"""One task of the delivery loop's pool."""

from __future__ import annotations

import asyncio

from maypole.bus.deadlines import Deadlines, HandlerGuard
from maypole.bus.work import Work


class Worker(HandlerGuard):
    """Also the guard over the handler it runs."""

    def __init__(self, deadlines: Deadlines) -> None:
        super().__init__(deadlines)
        self.work: Work | None = None
        self.halting: asyncio.Future[None] | None = None
        """Somebody has cut off what it works on, and waits until that is over."""
        self._cuts = 0

    def cut_off(self) -> None:
        """What it works on; the worker goes on. It may come to that twice: fenced, and then taken away while it cleans up."""
        if self.task is not None:
            self._cuts += 1
            self.task.cancel()

    def was_cut_off(self) -> bool:
        """Whether that alone was its cancellation, which is taken back; else somebody ends the worker."""
        cuts, self._cuts = self._cuts, 0
        if self.task is None or not cuts:
            return False
        for _ in range(cuts):
            self.task.uncancel()
        return not self.task.cancelling()

    def halted(self) -> None:
        halting, self.halting = self.halting, None
        if halting is not None and not halting.done():
            halting.set_result(None)
