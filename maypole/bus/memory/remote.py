"""What is sent to a server happens there, and then: also when whoever sent it has died, or asks no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import TypeVar

T = TypeVar("T")


async def carried_out(seconds: float, change: Callable[[], T]) -> T:
    """Have the change made after so many seconds of the loop's time, by nobody's task; returns or raises what it does.

    Without a delay it is made here, after one turn of the loop: a caller must not count on nothing happening meanwhile.
    """
    if seconds <= 0:
        await asyncio.sleep(0)
        return change()
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()
    # A context of its own: what belongs to a process of a simulation is known by its context, and this belongs to none.
    loop.call_later(seconds, _carry_out, change, answer, context=Context())
    return await answer


def _carry_out(change: Callable[[], T], answer: asyncio.Future[T]) -> None:
    try:
        found = change()
    except Exception as error:  # noqa: BLE001 - told to whoever asked, if it still listens
        if not answer.done():
            answer.set_exception(error)
    else:
        if not answer.done():
            answer.set_result(found)
