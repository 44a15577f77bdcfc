"""One attempt at a step: the border where whatever comes out of a handler becomes an answer or a failure that counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from maypole.bus.interruption import raised_by_a_signal
from maypole.bus.outcomes import Reject
from maypole.schemas.errors import ContractRefused


class Guard(Protocol):
    """Watches over one handler at a time from outside the task that runs it."""

    def arm(self, timeout_seconds: float) -> None: ...

    def disarm(self) -> bool:
        """Whether the time was up. A cancellation that was meant for the handler is taken back."""
        ...


class Failed(NamedTuple):
    error: BaseException


async def attempted(guard: Guard, timeout_seconds: float, call: Callable[..., Awaitable[object]], *arguments: object) -> object | Failed:
    """What the handler returned, or how it failed; `call` may answer `Failed` itself.

    Raises `CancelledError` when somebody ends this task, whatever the handler made of it, and lets through what a
    signal raised. Everything else that a handler can raise is its own: also what would end the process.
    """
    task = asyncio.current_task()
    assert task is not None
    guard.arm(timeout_seconds)
    try:
        answer = await call(*arguments)
    except BaseException as error:
        if raised_by_a_signal(error) or (isinstance(error, GeneratorExit) and not _runs(task)):
            raise
        answer = Failed(error)
    overdue = guard.disarm()
    if task.cancelling():
        raise asyncio.CancelledError
    if overdue or type(answer) is Failed:
        return _counted(answer, overdue, timeout_seconds)
    return answer


def _counted(answer: object | Failed, overdue: bool, timeout_seconds: float) -> Failed:
    failure = answer.error if isinstance(answer, Failed) else None
    if isinstance(failure, (Reject, ContractRefused)):
        return Failed(failure)
    if overdue or failure is None:
        timeout = TimeoutError(f"the handler took longer than {timeout_seconds:g} s")
        timeout.__cause__ = failure
        return Failed(timeout)
    if isinstance(failure, asyncio.CancelledError):
        return Failed(RuntimeError(f"the handler was cancelled from inside: {failure!r}"))
    return Failed(_speakable(failure))


def _runs(task: asyncio.Task[object]) -> bool:
    """A coroutine that is closed from outside, because its loop is gone, is not run by its task."""
    try:
        return asyncio.current_task() is task
    except RuntimeError:
        return False


def _speakable(error: BaseException) -> BaseException:
    """Everybody from here on tells what the error says, and none could go on if it raised another."""
    try:
        str(error)
        repr(error)
    except Exception as silence:  # noqa: BLE001 - the users' class, the users' bug
        return RuntimeError(f"{type(error).__qualname__}, which cannot say what it is: {type(silence).__qualname__}")
    return error
