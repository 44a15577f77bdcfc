"""What one call of the command line runs with: the options before the command, and the settings they lead to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import click

from maypole.services.cli.log_lines import log_to_stderr

if TYPE_CHECKING:
    from maypole.settings import Settings

# The embedded broker answers a fetch that finds nothing only when its wait is over, whatever arrives meanwhile.
_EMBEDDED_CONFIG: Final = {"fetch.wait.max.ms": "20"}

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

    @property
    def embedded_settings(self) -> Settings:
        """For a command that brings its own broker: a registry and broker configured for another one stay out of it."""
        return replace(self.settings, kafka=None, kafka_config=_EMBEDDED_CONFIG, registry_url=None, transport="confluent")


def asynchronous(function: Callable[Concatenate[Session, P], Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make a click callback of a coroutine that wants the session first."""

    @wraps(function)
    def run(*arguments: P.args, **options: P.kwargs) -> T:
        session = click.get_current_context().find_object(Session) or Session()
        log_to_stderr(session.verbosity)
        return asyncio.run(function(session, *arguments, **options))

    return run
