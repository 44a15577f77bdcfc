"""Watching one flow to its end, and what its end means for the exit code."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

import click

from maypole.bus.composition import Platform
from maypole.schemas.identifiers import FlowId
from maypole.services.cli.agent_status import standing_of
from maypole.services.cli.flow_picture import FlowPicture
from maypole.services.cli.flow_views import View
from maypole.services.cli.problems import ExitCode
from maypole.services.cli.program import command
from maypole.services.following import Vantage, follow

_REST_SECONDS: Final = 3.0
"""How long what belongs to the end may come after it."""
_LOOK_SECONDS: Final = 1.0
"""Between looks at those who owe something: an agent that died says nothing."""


async def watch(platform: Platform, flow: FlowId, vantage: Vantage, view: View, timeout_seconds: float) -> FlowPicture:
    """Until the flow has ended, or the time is up: then the picture is undecided."""
    picture = FlowPicture()
    loop = asyncio.get_running_loop()
    looking = asyncio.create_task(_look_for_the_absent(platform, picture, view), name="looking for the absent")
    try:
        async with asyncio.timeout(timeout_seconds) as limit:
            async for seen in follow(platform, flow, vantage):
                before = picture.decided
                picture.see(seen)
                view.show(picture)
                if picture.complete or picture.without_subscriber:
                    break
                if picture.decided and not before:
                    limit.reschedule(loop.time() + _REST_SECONDS)
    except TimeoutError:
        pass  # the picture says whether the flow or only the rest of it is missing
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    _ask_after(platform, picture)
    view.show(picture)
    return picture


async def _look_for_the_absent(platform: Platform, picture: FlowPicture, view: View) -> None:
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        _ask_after(platform, picture)
        if not all(standing.running for standing in picture.standings.values()):
            view.show(picture)


def _ask_after(platform: Platform, picture: FlowPicture) -> None:
    now = datetime.fromtimestamp(platform.now(), UTC)
    picture.standings = {step.agent: standing_of(platform.catalog.view, step.agent, now) for step in picture.owed}


def told_end(picture: FlowPicture, timeout_seconds: float, dlq_at_hand: bool = True) -> ExitCode:
    """Say how it ended on standard error. `dlq_at_hand`: the dead letter can still be looked at after this command."""
    if picture.without_subscriber:
        assert picture.state is not None
        root = picture.state.roots[0].type
        _say("no_subscriber", "yellow", f"no agent subscribes to {root}, so nothing will ever come of this flow")
        _hint(f"{command('agents', 'list')}, or {command('new', 'agent', 'NAME', '--on', root, '--emits', 'TYPE')}")
        return ExitCode.FAILED
    if not picture.decided or picture.state is None:
        return _told_what_is_owed(picture, timeout_seconds)
    if picture.failure is None:
        _say("committed", "green", f"every expected step is done, in {picture.seconds:.2f} s")
        return ExitCode.DONE
    failed = picture.failure
    _say("aborting", "red", f"{failed.agent} failed for good on {failed.subscription}: {failed.reason}")
    click.echo(f"  {failed.detail}", err=True)
    if picture.buried is not None and dlq_at_hand:
        _hint(command("dlq", "show", picture.buried.place))
    return ExitCode.FAILED


def _told_what_is_owed(picture: FlowPicture, timeout_seconds: float) -> ExitCode:
    owed = ", ".join(f"{step.agent} on {step.trigger.type}" for step in picture.owed)
    _say("running", "yellow", f"not finished after {timeout_seconds:g} s{f'; still owed: {owed}' if owed else ''}")
    for standing in picture.standings.values():
        click.echo(f"  {standing.agent} {standing.text}", err=True)
    for standing in picture.standings.values():
        if not standing.running:
            _hint(f"{command('run', 'FILE')}   (whatever {standing.agent} was run from: then this flow goes on)")
            _hint(f"{command('agents', 'retire', standing.agent)}   (flows that start from then on do not wait for it)")
    if all(standing.running for standing in picture.standings.values()):
        _hint(f"{command('agents', 'list')} shows who is running; the flow goes on without being watched")
    return ExitCode.TIMED_OUT


def _say(state: str, colour: str, text: str) -> None:
    click.echo(f"{click.style(state, fg=colour, bold=True)}  {text}", err=True)


def _hint(text: str) -> None:
    click.echo(f"{click.style('try:', fg='cyan')} {text}", err=True)
