"""`maypole dev`: a broker and agents that stay, for a second terminal to work with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from maypole.services.cli.corpus_option import check_corpus, corpus_option
from maypole.services.cli.output import warn
from maypole.services.cli.problems import ExitCode
from maypole.services.cli.program import command as typed
from maypole.services.cli.session import Session, asynchronous
from maypole.services.cli.teaching import Command, examples

if TYPE_CHECKING:
    from maypole.bus import Agent


@click.command(
    cls=Command,
    epilog=examples(
        "maypole dev",
        "maypole dev --corpus ./docs",
        "maypole dev translate.py",
        "maypole --home .other dev     a second one beside the first",
    ),
)
@click.argument("targets", metavar="[TARGET]...", nargs=-1)
@corpus_option
@asynchronous
async def command(session: Session, targets: tuple[str, ...]) -> int:
    """Embedded Kafka, a coordinator and the given agents (by default the four reference agents) until Ctrl-C.

    Other commands run in this folder find the broker by themselves. It keeps everything in memory: what was published is
    gone when it stops, and so is what its agents kept. Reports stay.
    """
    from maypole.bus.composition import open_platform
    from maypole.bus.kafka.embedded import EmbeddedKafka
    from maypole.services.cli.coordinating import coordinating
    from maypole.services.cli.endpoints_file import claimed, require_unused, written
    from maypole.services.cli.running import kept_meanwhile, running, stop_requested, until_stopped
    from maypole.services.cli.start_warnings import start_warnings
    from maypole.services.cli.targets import REFERENCE_AGENTS, load_agents

    home = session.settings.home
    session.share()
    agents = load_agents(targets or REFERENCE_AGENTS)
    check_corpus(session)
    with claimed(home):
        require_unused(home)
        with EmbeddedKafka() as kafka:
            async with open_platform(session.beside(kafka.bootstrap, "maypole dev", registry=True)) as platform:
                warn(await start_warnings(platform, agents))
                with kept_meanwhile(platform.home, agents):
                    async with coordinating(platform) as (_, coordinator), running(platform, agents) as task:
                        with written(platform.settings), stop_requested() as asked:
                            _welcome(kafka.bootstrap, agents, standard=not targets)
                            await until_stopped(asked, task, coordinator)
    click.echo("stopped", err=True)
    return ExitCode.DONE


def _welcome(kafka: str, agents: list[Agent], *, standard: bool) -> None:
    from maypole.services.cli.running import introduce

    say = click.echo
    say(f"{click.style('ready', fg='green')}  Kafka at {kafka} (in memory, until Ctrl-C)", err=True)
    for agent in agents:
        say(f"       {introduce(agent)}", err=True)
    say("\nIn another terminal, in this folder:", err=True)
    for line in _next(agents, standard=standard):
        say(f"  {line}", err=True)


def _next(agents: list[Agent], *, standard: bool) -> list[str]:
    """What works with these agents."""
    if standard:
        return [
            typed("publish", "research.requested", "--data", '{"question": "How do try and finally interact?"}', "--follow"),
            typed("new", "agent", "translate", "--on", "report.published", "--emits", "report.translated"),
            typed("run", "translate.py"),
            typed("agents", "list"),
        ]
    root = next((each for agent in agents for subscription in agent.subscriptions for each in subscription.event_types), None)
    shown = [] if root is None else [typed("schemas", "show", root), typed("publish", root, "--data", "JSON", "--follow")]
    return [*shown, typed("agents", "list")]
