"""What the commands that tell a flow something have in common: who says it, and what follows from it."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from maypole.services.cli.commands.publish import Duration
from maypole.services.cli.output import Form, print_object
from maypole.services.cli.problems import ExitCode, Problem

if TYPE_CHECKING:
    from maypole.bus.composition import Platform
    from maypole.services.cli.flow_picture import FlowPicture
    from maypole.services.cli.flow_story import FlowStory

F = TypeVar("F", bound=Callable[..., Any])
_TEXT_MAX: Final = 1000


def _user_at_host() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "somebody"  # a container's user may have no name
    return f"{user}@{socket.gethostname()}"


class _Who(click.ParamType[str, str]):
    name = "who"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        who = str(value)
        if not (who.strip() and who.isprintable() and len(who) <= _TEXT_MAX):
            self.fail(f"expected a name of 1 to {_TEXT_MAX} printable characters, found {who[:60]!r}", param, ctx)
        return who


def who_option(function: F) -> F:
    return click.option("--by", type=_Who(), metavar="WHO", default=_user_at_host, help="Who says so. Default: user@host")(function)


def following_options(function: F) -> F:
    help_line = "How long to watch what follows."
    return click.option("--timeout", type=Duration(), metavar="10s", default="10s", show_default=True, help=help_line)(function)


def written(option: str, text: str) -> None:
    """Whoever reads the journal later has nothing else. Raises `Problem`."""
    if not text.strip() or len(text) > _TEXT_MAX:
        found = "nothing" if not text.strip() else f"{len(text)} characters"
        raise Problem(f"{option}: expected a reason of 1 to {_TEXT_MAX} characters, found {found}", ExitCode.USAGE)


async def show_what_follows(platform: Platform, story: FlowStory, timeout_seconds: float, form: Form, said: Mapping[str, Any]) -> FlowStory:
    """From where the story ends: draw the flow until it has ended or waits for a person, or the time is up, and say where it stands.

    For a program one object: what was `said` to the flow, and what came of it, in the words of `publish --follow`.
    Gives back the story as far as it was seen.
    """
    from maypole.services.cli.saga_views import UNWATCHED, outcome

    came = UNWATCHED
    try:
        picture = await _watched(platform, story, timeout_seconds)
        came = outcome(picture)
    finally:
        # Whoever interrupts the watching still gets what stands in the journal by then.
        if form != "table":
            print_object({"flow_id": story.saga.flow_id, **said, **came}, form)
    return picture.story


async def _watched(platform: Platform, story: FlowStory, timeout_seconds: float) -> FlowPicture:
    from maypole.services.cli.flow_ending import told_end
    from maypole.services.cli.flow_picture import FlowPicture
    from maypole.services.cli.flow_views import open_view
    from maypole.services.cli.watching import watch
    from maypole.services.following import vantage_from_start

    choreography = story.saga.choreography
    if choreography is None:
        click.echo("the flow has not begun yet, as far as the journal tells", err=True)
        return FlowPicture(story)
    vantage = await vantage_from_start(platform, choreography)
    with open_view() as view:
        picture = await watch(platform, story.saga.flow_id, vantage, view, timeout_seconds, known=story.records)
    told_end(picture, timeout_seconds)
    return picture
