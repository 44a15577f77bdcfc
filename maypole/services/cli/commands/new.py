"""`maypole new agent`: one file to begin with, and its test."""

from __future__ import annotations

import keyword
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from maypole.services.cli.problems import ExitCode, Problem
from maypole.services.cli.program import command as typed
from maypole.services.cli.session import Session, asynchronous
from maypole.services.cli.teaching import Group, examples

if TYPE_CHECKING:
    from maypole.services.cli.event_types import EventType

_EXAMPLE: Final = "maypole new agent translate --on report.published --emits report.translated"
_CATALOG_SECONDS: Final = 10.0


@click.group(cls=Group, epilog=examples(_EXAMPLE))
def command() -> None:
    """Write something new into this folder. Nothing that is there is ever overwritten."""


@command.command("agent", epilog=examples(_EXAMPLE, "maypole new agent alert --on research.inconclusive --emits alert.raised"))
@click.argument("name")
@click.option("--on", "on_name", metavar="TYPE", required=True, help="The event that it reacts to.")
@click.option("--emits", "emits_name", metavar="TYPE", required=True, help="The event that it emits, in the past tense: <domain>.<fact>")
@asynchronous
async def agent(session: Session, name: str, on_name: str, emits_name: str) -> int:
    """Write NAME.py, an agent that runs as it is, and test_NAME.py, its test.

    An event type that ships with Maypole is used by its class, one that agents announced by its fields, and any other by
    its name alone.
    """
    from maypole.bus import Agent
    from maypole.schemas.event import checked_type
    from maypole.services.cli.agent_template import Draft

    Agent(name)  # refuses a name that cannot be one
    for event_type in (on_name, emits_name):
        checked_type(event_type)
    if on_name == emits_name:
        raise Problem(f"expected two different types, found {on_name} twice: the agent would react to itself for ever", ExitCode.USAGE)
    known = await _known(session)
    draft = Draft(name, on_name, known.get(on_name), emits_name, known.get(emits_name))
    files = {Path(f"{draft.module}.py"): draft.agent(), Path(f"test_{draft.module}.py"): draft.test()}
    _require_free(draft.module, list(files))
    for path, text in files.items():
        _write(path, text)
        click.echo(str(path))
    others = draft.emits.declared_by if draft.emits is not None else ()
    if others and draft.emits is not None and draft.emits.event_class is None:
        click.echo(
            f"note: {', '.join(others)} declares {emits_name} too; give it the same fields: {typed('schemas', 'show', emits_name)}",
            err=True,
        )
    if draft.on is None:
        click.echo(f"note: nobody here has declared {on_name} yet; the handler gets its fields as a mapping, whatever they are", err=True)
    click.echo(f"try: {typed('run', f'{draft.module}.py')}", err=True)
    return ExitCode.DONE


async def _known(session: Session) -> dict[str, EventType]:
    """With the catalog where there is one. It only makes the draft better, so its absence is no error."""
    import asyncio

    from maypole.bus.ports import BrokerUnreachable
    from maypole.services.cli.connection import connected
    from maypole.services.cli.event_types import known_types

    if session.settings.kafka is None:
        return known_types(None)
    try:
        async with asyncio.timeout(_CATALOG_SECONDS), connected(session) as platform:
            return known_types(platform.catalog.view)
    except (Problem, BrokerUnreachable, TimeoutError):
        click.echo(f"note: Kafka at {session.settings.kafka} does not answer, so only types that ship with Maypole are known", err=True)
        return known_types(None)


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x") as file:
            file.write(text)
    except OSError as error:
        message = f"expected a folder that can be written, found that {path} cannot be made in {Path.cwd()}: {error.strerror}"
        raise Problem(message, ExitCode.FAILED, "the same in another folder") from error


def _require_free(module: str, files: list[Path]) -> None:
    for path in files:
        if path.exists():
            raise Problem(
                f"expected no file at {path}, found one; nothing was written",
                ExitCode.USAGE,
                "another name, another folder, or move it away",
            )
    if keyword.iskeyword(module) or find_spec(module) is not None:
        raise Problem(
            f"{module}.py would have the name of something that Python already uses; expected another name", ExitCode.USAGE, _EXAMPLE
        )
