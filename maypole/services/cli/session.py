"""What one call of the command line runs with: the options before the command, and the settings they lead to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from maypole.services.cli.interrupts import stopping_with
from maypole.services.cli.log_lines import log_to_stderr
from maypole.services.cli.problems import interruption

if TYPE_CHECKING:
    from maypole.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Session:
    overrides: dict[str, str] = field(default_factory=dict)
    """Settings by name, from options of the command line."""
    verbosity: int = 0

    @cached_property
    def settings(self) -> Settings:
        """Raises `WrongSetting`."""
        from maypole.settings import read_settings

        return read_settings(os.environ, Path.cwd(), self.overrides)

    def share(self) -> None:
        """Agents in this process read settings of their own from the environment: what the command line says is said there too."""
        os.environ.update(self.overrides)

    def beside(self, kafka: str, source: str, *, registry: bool) -> Settings:
        """Settings for a broker that this command brings along: what was said of another broker does not concern it.

        `registry`: whether the registry that is set is used. Read anew, because what stood in `endpoints.json` may be gone.
        """
        fresh = Session(self.overrides).settings
        own = replace(fresh, kafka_config={}, transport="confluent", registry_url=fresh.registry_url if registry else None)
        return own.at(kafka, source)


def asynchronous(function: Callable[Concatenate[Session, P], Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make a click callback of a coroutine that wants the session first."""

    @wraps(function)
    def run(*arguments: P.args, **options: P.kwargs) -> T:
        session = click.get_current_context().find_object(Session) or Session()
        log_to_stderr(session.verbosity)
        return asyncio.run(_interruptible(function(session, *arguments, **options)))

    return run


async def _interruptible(command: Coroutine[Any, Any, T]) -> T:
    """The first signal cancels the command, which puts its things away; what goes wrong on that way concerns nobody."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    interrupted = False

    def stop() -> None:
        nonlocal interrupted
        interrupted = True
        loop.call_soon_threadsafe(task.cancel)

    with stopping_with(stop):
        try:
            return await command
        except (Exception, asyncio.CancelledError) as error:
            if interrupted:
                raise interruption() from error
            raise
