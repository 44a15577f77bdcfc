"""`maypole dlq`: what agents could not handle."""

from __future__ import annotations

from typing import Any, Final

import click

from maypole.services.cli.output import Form, as_json, output_option, print_object, print_rows
from maypole.services.cli.problems import ExitCode, Problem
from maypole.services.cli.program import command as typed
from maypole.services.cli.session import Session, asynchronous
from maypole.services.cli.teaching import Group, examples

_GROUPS: Final = {"agent": "AGENT", "reason": "REASON", "count": "COUNT", "first": "FIRST", "last": "NEWEST", "example": "NEWEST ID"}
_SHOWN: Final = ("id", "reason", "error", "attempts", "first_failed_at", "flow_id", "event_id", "key")


@click.group(cls=Group, epilog=examples("maypole dlq list", "maypole dlq list analysis -o jsonl", "maypole dlq show analysis/2/0"))
def command() -> None:
    """Dead letters: events that an agent could not handle, kept as they were, with the reason beside them."""


@command.command("list", epilog=examples("maypole dlq list", "maypole dlq list analysis", "maypole dlq list -o jsonl"))
@click.argument("agent", required=False)
@click.option("--flow", metavar="FLOW", help="Only the letters of this flow.")
@output_option
@asynchronous
async def list_(session: Session, agent: str | None, flow: str | None, form: Form) -> int:
    """How many lie there, by agent and reason. With `-o json` or `-o jsonl` each of them."""
    from maypole.services.cli.connection import connected_transport
    from maypole.services.cli.dead_letters import agents_with_letters, group, letter_row, read_letters

    async with connected_transport(session) as transport:
        agents = await agents_with_letters(transport.cluster)
        if agent is not None and agent not in agents:
            known = ", ".join(agents) or "none"
            raise Problem(
                f"expected an agent with a dead-letter topic, found {agent!r}; there is {known}", ExitCode.NOT_FOUND, "maypole agents list"
            )
        rows: list[dict[str, Any]] = []
        async for record in read_letters(transport, agents if agent is None else [agent]):
            row = letter_row(record)
            if flow is not None and row["flow_id"] != flow:
                continue
            if form == "jsonl":
                click.echo(as_json(row))
            else:
                rows.append(row)
    if form == "json":
        print_rows(rows, form, {})
    elif form == "table":
        groups = group(rows)
        print_rows(groups, form, _GROUPS)
        click.echo(f"try: {typed('dlq', 'show', groups[0]['example'])}" if groups else "no dead letters", err=True)
    return ExitCode.DONE


@command.command("show", epilog=examples("maypole dlq show analysis/2/0", "maypole dlq show analysis/2/0 -o json"))
@click.argument("place", metavar="AGENT/PARTITION/OFFSET")
@output_option
@asynchronous
async def show(session: Session, place: str, form: Form) -> int:
    """One dead letter: why it is there, its headers, and its value as far as it can be decoded."""
    from maypole.services.cli.connection import connected
    from maypole.services.cli.dead_letters import Place, opened, read_letter

    try:
        wanted = Place.parse(place)
    except ValueError:
        message = f"expected AGENT/PARTITION/OFFSET, as in analysis/2/0, found {place!r}"
        raise Problem(message, ExitCode.USAGE, "maypole dlq list") from None
    async with connected(session) as platform:
        record = await read_letter(platform.transport, wanted)
        if record is None:
            message = f"expected a dead letter at {wanted}, found none: it never was there, or retention has deleted it"
            raise Problem(message, ExitCode.NOT_FOUND, "maypole dlq list")
        letter = await opened(platform, record)
    if form != "table":
        print_object(letter, form)
        return ExitCode.DONE
    print_object({name: letter[name] for name in _SHOWN} | {"from": f"{letter['topic']}/{letter['partition']}/{letter['offset']}"}, form)
    _section("headers", letter["headers_error"])
    print_object(letter["headers"], form)
    if letter["data_error"] is None:
        _section(f"value (schema id {letter['schema_id']})", None)
        click.echo(as_json(letter["data"], indent=2))
    else:
        _section("value", letter["data_error"])
        click.echo(f"{letter['value_bytes']} bytes that begin {letter['value_begins'] or 'nowhere'}")
    return ExitCode.DONE


def _section(name: str, fault: str | None) -> None:
    click.echo(f"\n{click.style(name, bold=True)}{click.style(f'  cannot be read: {fault}', fg='red') if fault else ''}")
