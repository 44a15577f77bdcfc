"""Group commits: whatever is asked while a transaction is under way shares the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

_Work = TypeVar("_Work")


async def _nothing() -> None:
    return None


class GroupCommit(Generic[_Work]):
    """Belongs to one event loop. One transaction at a time, in the order of asking; a lone call never waits for company."""

    def __init__(self, commit: Callable[[list[_Work]], Awaitable[Sequence[Any]]], tidy: Callable[[], Awaitable[None]] = _nothing) -> None:
        """`commit` carries out a group in one transaction and returns one answer for each; what it raises is told to the whole group.

        `tidy` is awaited after the answers of a group were given; it raises nothing.
        """
        self._commit = commit
        self._tidy = tidy
        self._waiting: list[tuple[_Work, asyncio.Future[Any]]] = []
        self._committing: asyncio.Task[None] | None = None

    async def call(self, work: _Work) -> Any:
        """The work's answer, once it is committed. Raises what `commit` raised. Who is cancelled meanwhile takes nothing back."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, answer))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_groups())
        return await answer

    async def finish(self) -> None:
        """Waits until everything that was asked before is committed."""
        if self._committing is not None:
            await self._committing

    async def _commit_groups(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                try:
                    found = await self._commit([work for work, _ in group])
                except Exception as error:  # noqa: BLE001 - told to every caller of the group
                    for _, answer in group:
                        if not answer.done():
                            answer.set_exception(error)
                    continue
                for (_, answer), value in zip(group, found, strict=True):
                    if not answer.done():
                        answer.set_result(value)
                await self._tidy()
        finally:
            self._committing = None
