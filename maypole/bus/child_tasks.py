"""Tasks that handlers start: one that raises `SystemExit` or `KeyboardInterrupt` fails its handler, as the handler itself would.

Left alone, asyncio hands these two out of a task to whoever runs the loop: the process ends, and again when the event
comes back. Nobody who awaits the task can prevent that, so it is done inside the task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from typing import Any, Final

from maypole.bus.interruption import raised_by_a_signal

handles: Final[ContextVar[bool]] = ContextVar("maypole_handles", default=False)
"""Set in the tasks that run handlers; the tasks that a handler starts inherit it, and theirs."""


class ProcessExitAttempted(RuntimeError):
    """A task of a handler tried to end the process."""


def contain_child_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """From now on, on this loop. Safe to repeat; a task factory that somebody else has set still makes the tasks."""
    made_by = loop.get_task_factory()
    if isinstance(made_by, _Factory):
        return
    loop.set_task_factory(_Factory(made_by))


class _Factory:
    def __init__(self, inner: Any) -> None:
        self._inner = inner or _make

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        if handles.get():
            parent = asyncio.current_task(loop)
            coro = _Contained(coro, None if parent is None else handling_task(parent))
        return self._inner(loop, coro, **options)


def handling_task(task: asyncio.Task[Any]) -> asyncio.Task[Any]:
    """The one that runs the handler which has started this task, however many lie between; the task itself where none has."""
    coro: object = task.get_coro()
    return coro.handling if isinstance(coro, _Contained) and coro.handling is not None else task


def _make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coro, loop=loop, **options)


class _Contained(Coroutine[Any, Any, Any]):
    """The coroutine itself in all but one thing; one around it would leave it unawaited when its task is cancelled at once."""

    def __init__(self, coro: Coroutine[Any, Any, Any], handling: asyncio.Task[Any] | None) -> None:
        self._coro = coro
        self.handling = handling

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coro, name)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coro.__await__()

    def send(self, value: Any) -> Any:
        try:
            return self._coro.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            if raised_by_a_signal(error):
                raise
            raise ProcessExitAttempted(f"a task of the handler raised {error!r}") from error

    def throw(self, *error: Any) -> Any:
        try:
            return self._coro.throw(*error)
        except (SystemExit, KeyboardInterrupt) as raised:
            if raised_by_a_signal(raised):
                raise
            raise ProcessExitAttempted(f"a task of the handler raised {raised!r}") from raised

    def close(self) -> None:
        self._coro.close()
