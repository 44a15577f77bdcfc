"""`maypole topics`: what lies on Kafka, what should, and making it so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from maypole.services.cli.output import Form, output_option, print_rows
from maypole.services.cli.problems import ExitCode
from maypole.services.cli.program import command as typed
from maypole.services.cli.session import Session, asynchronous
from maypole.services.cli.teaching import Group, examples

if TYPE_CHECKING:
    from maypole.services.cli.topic_plan import Finding

_LIST: Final = {"topic": "TOPIC", "kind": "KIND", "partitions": "PARTITIONS", "records": "RECORDS", "agents": "AGENTS"}
_PLAN: Final = {"topic": "TOPIC", "action": "ACTION", "partitions": "PARTITIONS", "differences": "DIFFERENCES", "agents": "AGENTS"}

_targets = click.argument("targets", metavar="[TARGET]...", nargs=-1)
_partitions = click.option(
    "--partitions", type=click.IntRange(1, 10_000), help="Of topics that are created without a number of their own. Default: 4"
)


@click.group(
    cls=Group, epilog=examples("maypole topics list", "maypole topics plan translate.py", "maypole topics apply maypole.services.research")
)
def command() -> None:
    """Topics, each declared once with partitions, retention and cleanup.

    Declared are the platform's own, those of the agents in the catalog, and those of every TARGET named.
    """


@command.command("list", epilog=examples("maypole topics list", "maypole topics list -o json"))
@output_option
@asynchronous
async def list_(session: Session, form: Form) -> int:
    """Every topic on the broker. RECORDS counts what retention has left, transaction markers included."""
    from maypole.bus.ports import TopicPartition
    from maypole.services.cli.connection import connected
    from maypole.services.cli.topic_plan import Declared, add_catalog, kind_of

    async with connected(session) as platform:
        cluster = platform.transport.cluster
        there = await cluster.topics()
        watermarks = await cluster.watermarks(
            [TopicPartition(topic, partition) for topic, count in there.items() for partition in range(count)]
        )
        declared = add_catalog(Declared(), platform.catalog.view)
    records = dict.fromkeys(there, 0)
    for at, (oldest, end) in watermarks.items():
        records[at.topic] += end - oldest
    rows = [
        {
            "topic": name,
            "kind": kind_of(name),
            "partitions": there[name],
            "records": records[name],
            "agents": sorted(declared.agents.get(name, ())),
        }
        for name in sorted(there)
    ]
    print_rows(rows, form, _LIST)
    return ExitCode.DONE


@command.command("plan", epilog=examples("maypole topics plan", "maypole topics plan maypole.services.research translate.py"))
@_targets
@_partitions
@output_option
@asynchronous
async def plan_(session: Session, targets: tuple[str, ...], partitions: int | None, form: Form) -> int:
    """What `apply` would create, and where what is there differs from what is declared. Changes nothing."""
    from maypole.services.cli.connection import connected_transport
    from maypole.services.cli.topic_facts import find

    async with connected_transport(session) as transport:
        findings = await find(transport, targets, partitions, registry=session.settings.registry_url is not None)
    print_rows([finding.row() for finding in findings], form, _PLAN)
    _advise(findings)
    return ExitCode.DONE


@command.command("apply", epilog=examples("maypole topics apply", "maypole topics apply maypole.services.research --partitions 12"))
@_targets
@_partitions
@output_option
@asynchronous
async def apply(session: Session, targets: tuple[str, ...], partitions: int | None, form: Form) -> int:
    """Create the topics that are missing, then verify all of them.

    What exists is never changed: more partitions would break the order within flows, and shorter retention would lose
    records. Exit code 1 when something there differs from its declaration.
    """
    from maypole.bus.ports import TopicSpec
    from maypole.services.cli.connection import connected_transport
    from maypole.services.cli.topic_facts import find

    async with connected_transport(session) as transport:
        findings = await find(transport, targets, partitions, registry=session.settings.registry_url is not None)
        missing = [finding for finding in findings if finding.action == "create"]
        await transport.cluster.create([TopicSpec(finding.topic.name, finding.partitions, finding.topic.config) for finding in missing])
        verified = await find(transport, targets, partitions, registry=session.settings.registry_url is not None)
    created = {finding.topic.name for finding in missing}
    rows = [
        {**finding.row(), "action": "created" if finding.topic.name in created and finding.action == "ok" else finding.action}
        for finding in verified
    ]
    print_rows(rows, form, _PLAN)
    click.echo(f"{len(created)} created, {sum(finding.action == 'ok' for finding in verified)} of {len(verified)} as declared", err=True)
    _advise(verified)
    return ExitCode.DONE if all(finding.action == "ok" for finding in verified) else ExitCode.FAILED


def _advise(findings: Sequence[Finding]) -> None:
    if any(finding.action == "create" for finding in findings):
        click.echo(f"try: {typed('topics', 'apply')}   with the same targets", err=True)
    for finding in findings:
        for difference in finding.differences:
            name, _, wanted = difference.partition(": expected ")
            if wanted and "." in name:
                value = wanted.partition(",")[0]
                click.echo(f"try: kafka-configs.sh --alter --topic {finding.topic.name} --add-config {name}={value}", err=True)
