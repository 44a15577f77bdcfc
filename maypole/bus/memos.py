"""`once`: one side effect inside a step that is not made again when the step is repeated."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from maypole.bus.attempt import Failed
from maypole.bus.ledger.port import Memos as Store
from maypole.schemas.envelope import TEXT_BYTES_MAX
from maypole.schemas.identifiers import StepId

T = TypeVar("T")
Json = Any
"""What JSON can hold: a memo outlives the process that made it."""


class Patiently(Protocol):
    def __call__(self, call: Callable[[], Awaitable[T]], /) -> Awaitable[T]: ...


class Memos:
    """Of one attempt at a step. Calls side by side under one name are one call.

    The first value kept under a name wins; a crash between the effect and its record repeats the effect.
    """

    def __init__(self, store: Store, step: StepId, patiently: Patiently) -> None:
        self._store = store
        self._step = step
        self._patiently = patiently
        self._loop = running_loop()
        self._turns: dict[str, asyncio.Lock] = {}
        self.threaded: Callable[[Callable[[], Any]], Awaitable[Any]] = asyncio.to_thread
        """Calls a plain function where it may block; may answer `Failed`. An agent's has a thread for each call, however many hang."""

    def once(self, name: str, fn: Callable[[], Any], check: Callable[[], None]) -> Any:
        """In a coroutine: something to await. In a plain function, which runs in a thread of its own: the value.

        `check` is called right before `fn`, and raises where it must not be called any more.
        """
        if len(name.encode()) > TEXT_BYTES_MAX:
            raise ValueError(f"once({name[:80]!r}): expected a name of at most {TEXT_BYTES_MAX} bytes in UTF-8, found {len(name.encode())}")
        made = self._once(name, fn, check)
        if self._loop is None or running_loop() is self._loop:
            return made
        return asyncio.run_coroutine_threadsafe(made, self._loop).result()

    async def _once(self, name: str, fn: Callable[[], Any], check: Callable[[], None]) -> Json:
        async with self._turns.setdefault(name, asyncio.Lock()):
            known = await self._patiently(lambda: self._store.memo(self._step, name))
            if known is None:
                check()
                value = await self._called(fn)
                known = await self._patiently(lambda: self._store.memoise(self._step, name, _written(name, value)))
        return json.loads(known)

    async def _called(self, fn: Callable[[], Any]) -> Any:
        value = await fn() if inspect.iscoroutinefunction(fn) else await self.threaded(fn)
        if type(value) is Failed:
            raise value.error
        return await value if inspect.isawaitable(value) else value


def running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _written(name: str, value: Any) -> bytes:
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise TypeError(f"once({name!r}): expected a value that JSON can hold, found {type(value).__name__}: {error}") from None
