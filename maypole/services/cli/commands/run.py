"""`maypole run`: agents as an independent process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from maypole.services.cli.corpus_option import check_corpus, corpus_option
from maypole.services.cli.output import warn
from maypole.services.cli.problems import ExitCode, Problem, leaf
from maypole.services.cli.session import Session, asynchronous
from maypole.services.cli.teaching import Command, examples

if TYPE_CHECKING:
    from maypole.bus.starting_offsets import StartFrom


@click.command(
    cls=Command,
    epilog=examples(
        "maypole run translate.py",
        "maypole run maypole.services.research maypole.services.analysis",
        "maypole run agents.py:translate --from earliest --durable",
    ),
)
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option(
    "--from",
    "start",
    type=click.Choice(["latest", "earliest"]),
    default="latest",
    show_default=True,
    help="Where an agent that is new begins.",
)
@click.option(
    "--temporary/--durable",
    default=None,
    help="Whether the agent retires when it stops, so that later flows do not wait for it. Default: temporary on the embedded broker.",
)
@corpus_option
@asynchronous
async def command(session: Session, targets: tuple[str, ...], start: StartFrom, temporary: bool | None) -> int:
    """Run agents until SIGTERM or Ctrl-C. TARGET is a module or a file, either with `:name` of the agent in it.

    A new agent begins at the end of its topics and takes part in the flows that start from then on. Once it is ready, the
    first signal finishes the work in hand, for 30 s at most, and exits with 0, also when the broker is gone; before that, and
    when it is the second one, it stops at once, with 130 for Ctrl-C and 143 for SIGTERM. What was not finished is delivered again.
    Agents wait for a broker that is away. One that `maypole dev` held in memory does not come back: they end with it, with 5.

    What an agent has done is kept in a SQLite file in the home folder, for one process of an agent at a time; several
    share a database instead: MAYPOLE_STORE=postgresql://...
    """
    from maypole.bus.ports import TopicsForbidden
    from maypole.services.cli.broker_gone import broker_gone
    from maypole.services.cli.connection import connected
    from maypole.services.cli.running import introduce, running, stop_requested, until_stopped
    from maypole.services.cli.start_warnings import start_warnings
    from maypole.services.cli.targets import load_agents
    from maypole.services.garbage import relax_collector

    session.share()
    agents = load_agents(targets)
    check_corpus(session)
    try:
        async with connected(session) as platform:
            in_memory = not platform.transport.features.survives_restart
            chosen = in_memory if temporary is None else temporary
            warn(await start_warnings(platform, agents))
            async with running(platform, agents, start=start, temporary=chosen) as task:
                with stop_requested() as asked:
                    relax_collector()
                    for agent in agents:
                        click.echo(f"{click.style('ready', fg='green')}  {introduce(agent)}", err=True)
                    await until_stopped(asked, task, gone=broker_gone(session.settings, in_memory=in_memory))
    except (TopicsForbidden, ExceptionGroup) as error:
        forbidden = leaf(error)
        if not isinstance(forbidden, TopicsForbidden):
            raise
        hint = f"maypole topics apply {' '.join(targets)}   (by somebody who may create topics)"
        raise Problem(str(forbidden), ExitCode.FAILED, hint) from error
    click.echo("stopped", err=True)
    return ExitCode.DONE
