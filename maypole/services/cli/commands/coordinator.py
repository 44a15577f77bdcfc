"""`maypole coordinator`: the saga coordinator as an independent process."""

from __future__ import annotations

import click

from maypole.services.cli.commands.publish import Duration
from maypole.services.cli.problems import ExitCode
from maypole.services.cli.session import Session, asynchronous
from maypole.services.cli.teaching import Command, examples


@click.command(
    cls=Command,
    epilog=examples(
        "maypole coordinator",
        "maypole coordinator --patience 2m",
        "MAYPOLE_STORE=postgresql://localhost/maypole maypole coordinator     one of several, on as many machines",
    )
    + """

\b
Exit codes: 0 stopped when it was asked to, 1 failed, 2 usage or settings, 5 broker unreachable,
130 and 143: Ctrl-C and SIGTERM before it was ready, or a second time.""",
)
@click.option(
    "--patience",
    type=Duration(),
    metavar="10m",
    default="10m",
    show_default=True,
    help="How long an agent may leave a command unanswered before its flow is stuck and waits for a person. "
    "Where it can have no answer before an attempt is over, and an attempt may take longer, so long.",
)
@asynchronous
async def command(session: Session, patience: float) -> int:
    """Read the journal, and see to it that every flow ends: committed, or with everything undone that it did.

    When a step fails for good, or a flow's deadline passes, the coordinator tells the flow's agents on `<agent>.commands`
    which steps must never run (fence) and which to take back (compensate), in the reverse order of their causes, and repeats
    it until they have answered. What cannot be undone is reported: see `maypole flows stuck`. Ends are published on the topic
    `maypole.flow.ended`.

    Any number of coordinators share the partitions of the journal. What they have read is kept in a SQLite file in the home
    folder, or in the database that MAYPOLE_STORE names; it is a cache, and folded anew from the journal when it is lost.
    """
    from maypole.services.cli.broker_gone import broker_gone
    from maypole.services.cli.connection import connected
    from maypole.services.cli.coordinating import coordinating
    from maypole.services.cli.running import first_of, stop_requested, until_stopped
    from maypole.services.garbage import relax_collector

    async with connected(session) as platform, coordinating(platform, patience_seconds=patience) as (coordinator, task):
        await first_of(coordinator.ready.wait(), task)
        with stop_requested() as asked:
            relax_collector()
            partitions = ", ".join(map(str, coordinator.partitions)) or "none: others have them all"
            click.echo(f"{click.style('ready', fg='green')}  coordinator, partitions of the journal: {partitions}", err=True)
            in_memory = not platform.transport.features.survives_restart
            await until_stopped(asked, task, gone=broker_gone(session.settings, in_memory=in_memory))
    click.echo("stopped", err=True)
    return ExitCode.DONE
