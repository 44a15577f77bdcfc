"""From an error to what the user reads: what is wrong, what to do, and the exit code that scripts rely on."""

from __future__ import annotations

import asyncio
import os
import sys
from enum import IntEnum

import click

from maypole.services.cli import interrupts
from maypole.services.cli.program import in_text


class ExitCode(IntEnum):
    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    COMPENSATED = 4
    """The followed flow ended, and what it had begun is undone."""
    UNREACHABLE = 5
    STUCK = 6
    """The followed flow waits for a person."""
    TIMED_OUT = 124
    INTERRUPTED = interrupts.INTERRUPTED
    TERMINATED = interrupts.TERMINATED

    @property
    def on_order(self) -> bool:
        """A signal said so: there is nothing to explain."""
        return self in (ExitCode.INTERRUPTED, ExitCode.TERMINATED)


class Problem(Exception):
    """A user's mistake or a refusal. `hint` is the next command to type, or what to change."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint

    def show(self) -> None:
        if self.code.on_order:
            click.echo(str(self), err=True)
            return
        # No command's context is left that would know.
        colour = False if os.environ.get("NO_COLOR") else None
        click.echo(f"{click.style('error:', fg='red', bold=True)} {in_text(str(self))}", err=True, color=colour)
        if self.hint:
            click.echo(f"{click.style('try:', fg='cyan')}   {in_text(self.hint)}", err=True, color=colour)


def explained(error: BaseException) -> Problem | None:
    """The problem that a known error is; None: nobody expected it."""
    error = leaf(error)
    if isinstance(error, Problem):
        return error
    if isinstance(error, (KeyboardInterrupt, asyncio.CancelledError, click.Abort)):
        return interruption()
    # By now the modules that could raise these are imported; before, none of them was raised.
    for module, name, code, hint in _KNOWN:
        known = _loaded(module, name)
        if known is not None and isinstance(error, known):
            return Problem(str(error), code, hint)
    return None


def interruption() -> Problem:
    word, code = interrupts.asked()
    return Problem(word, ExitCode(code))


def leaf(error: BaseException) -> BaseException:
    """What really happened: the first error inside the groups that concurrent tasks wrap it in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _loaded(module: str, name: str) -> type[BaseException] | None:
    found = sys.modules.get(module)
    return None if found is None else getattr(found, name)


_UNWANTED = "mend its declaration; or maypole agents retire NAME, if it is an agent that was announced before"
_KNOWN = (
    ("maypole.settings", "WrongSetting", ExitCode.USAGE, None),
    ("maypole.bus.ports", "BrokerUnreachable", ExitCode.UNREACHABLE, "maypole doctor"),
    ("maypole.bus.ports", "WrongProperty", ExitCode.USAGE, "correct the file that MAYPOLE_KAFKA_CONFIG names"),
    ("maypole.bus.ports", "PublishRefused", ExitCode.FAILED, None),
    ("maypole.bus.ports", "InstanceIdTaken", ExitCode.FAILED, "a file of its own for each instance, and MAYPOLE_KAFKA_CONFIG naming it"),
    ("maypole.bus.start_checks", "ConflictingSchemas", ExitCode.FAILED, None),
    ("maypole.bus.subscription", "WrongDeclaration", ExitCode.USAGE, None),
    ("maypole.bus.ledger.port", "LedgerError", ExitCode.FAILED, None),
    ("maypole.bus.membership", "IdempotencyConflict", ExitCode.FAILED, "publish the same event again, or choose another --idempotency-key"),
    ("maypole.bus.no_return", "NoPivot", ExitCode.FAILED, _UNWANTED),
    ("maypole.bus.no_return", "NoWayBack", ExitCode.FAILED, _UNWANTED),
    ("maypole.schemas.confluent", "NoRegistry", ExitCode.FAILED, "maypole doctor"),
    (
        "maypole.schemas.confluent",
        "RegistryRefused",
        ExitCode.FAILED,
        "maypole schemas check, which says which schema it is and what it breaks",
    ),
    ("maypole.schemas.confluent", "RegistryUnreachable", ExitCode.FAILED, "maypole doctor"),
    ("maypole.schemas.errors", "ContractRefused", ExitCode.USAGE, None),
    ("maypole.schemas.errors", "UnsafeSchema", ExitCode.USAGE, None),
    ("maypole.services.artefacts", "StoreUnusable", ExitCode.FAILED, None),
    ("maypole.services.saga.engine", "UnknownPin", ExitCode.FAILED, None),
    ("maypole.bus.partition_counts", "TopicsMissing", ExitCode.FAILED, None),
    ("maypole.services.coordinator.width", "JournalRepartitioned", ExitCode.FAILED, None),
    ("sqlite3", "DatabaseError", ExitCode.FAILED, None),
    ("builtins", "UnicodeEncodeError", ExitCode.USAGE, None),
    ("builtins", "OSError", ExitCode.FAILED, None),
)
