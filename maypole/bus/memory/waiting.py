"""Waiting for an event or a time of the loop, whichever is first."""

from __future__ import annotations

import asyncio


class Wakeup:
    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    def clear(self) -> None:
        self._event.clear()

    async def wait_until(self, when: float | None) -> bool:
        """True when it was set, false when the time (on the loop's clock; None: never) came first."""
        timer = None
        if when is not None:
            timer = asyncio.get_running_loop().call_at(when, self._event.set)
        try:
            await self._event.wait()
        finally:
            if timer is not None:
                timer.cancel()
        return when is None or asyncio.get_running_loop().time() < when
