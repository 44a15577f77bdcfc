"""`maypole schemas`: what events look like, and whether that can change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from maypole.services.cli.output import Form, output_option, print_rows
from maypole.services.cli.problems import ExitCode, Problem
from maypole.services.cli.session import Session, asynchronous
from maypole.services.cli.teaching import Group, examples

if TYPE_CHECKING:
    from maypole.services.cli.event_types import EventType

_LIST: Final = {"type": "TYPE", "schema_id": "SCHEMA ID", "fields": "FIELDS", "agents": "DECLARED BY"}
_FIELDS: Final = {"field": "FIELD", "type": "TYPE", "default": "DEFAULT", "doc": "MEANS"}
_VERDICTS: Final = {"type": "TYPE", "against": "AGAINST", "verdict": "VERDICT", "reasons": "REASONS"}


@click.group(cls=Group, epilog=examples("maypole schemas list", "maypole schemas show research.requested", "maypole schemas check"))
def command() -> None:
    """Contracts of events: those that ship with Maypole, and those that agents announced."""


@command.command("list", epilog=examples("maypole schemas list", "maypole schemas list -o json"))
@output_option
@asynchronous
async def list_(session: Session, form: Form) -> int:
    """Every event type that is known here."""
    from maypole.services.cli.connection import connected_if_any
    from maypole.services.cli.contract_checks import field_rows
    from maypole.services.cli.event_types import known_types

    async with connected_if_any(session) as platform:
        types = known_types(platform.catalog.view if platform is not None else None)
    rows = [
        {
            "type": found.name,
            "schema_id": found.schema.derived_id,
            "fields": [row["field"] for row in field_rows(found.schema)],
            "agents": list(found.declared_by),
            "ships": found.event_class is not None,
            "variants": 1 + len(found.others),
        }
        for found in types.values()
    ]
    print_rows(rows, form, _LIST)
    return ExitCode.DONE


@command.command(
    "show", epilog=examples("maypole schemas show research.requested", "maypole schemas show report.published -o json > report.avsc")
)
@click.argument("event_type", metavar="TYPE")
@output_option
@asynchronous
async def show(session: Session, event_type: str, form: Form) -> int:
    """One type: its fields and an example to publish. With `-o json` its Avro schema."""
    from maypole.services.cli.connection import connected_if_any
    from maypole.services.cli.contract_checks import field_rows
    from maypole.services.cli.event_types import type_called
    from maypole.services.cli.examples import example
    from maypole.services.cli.output import as_json
    from maypole.services.cli.program import command as typed

    async with connected_if_any(session) as platform:
        found = type_called(event_type, platform.catalog.view if platform is not None else None)
    if form != "table":
        click.echo(as_json(found.schema.definition, indent=2 if form == "json" else None))
        return ExitCode.DONE
    click.echo(f"{click.style(found.name, bold=True)}  schema id {found.schema.derived_id}")
    if doc := found.schema.definition.get("doc"):
        click.echo(f"{doc}")
    click.echo()
    print_rows(field_rows(found.schema), form, _FIELDS)
    click.echo(f"\n{typed('publish', found.name, '--data', example(found.schema))}")
    if found.others:
        click.echo(
            f"\n{1 + len(found.others)} agents' declarations of this type differ; see what keeps them apart: {typed('schemas', 'check')}"
        )
    return ExitCode.DONE


@command.command("check", epilog=examples("maypole schemas check", "maypole schemas check report.published -o json"))
@click.argument("types", metavar="[TYPE]...", nargs=-1)
@output_option
@asynchronous
async def check(session: Session, types: tuple[str, ...], form: Form) -> int:
    """Whether every contract can read what was and is written under its type.

    Held against the committed versions, against what other agents announced, and, with SCHEMA_REGISTRY_URL, against the
    registry. Exit code 1 when one refuses.
    """
    from maypole.services.cli.connection import connected_if_any
    from maypole.services.cli.contract_checks import against_agents, against_archive, against_registry

    async with connected_if_any(session) as platform:
        chosen = _chosen(types, platform.catalog.view if platform is not None else None)
    rows = [*against_archive(chosen), *against_agents(chosen)]
    if session.settings.registry_url is not None:
        rows += await against_registry(session.settings.registry_url, chosen)
    print_rows(rows, form, _VERDICTS)
    return ExitCode.DONE if all(row["verdict"] == "ok" for row in rows) else ExitCode.FAILED


@command.command("register", epilog=examples("maypole schemas register", "maypole schemas register report.published"))
@click.argument("types", metavar="[TYPE]...", nargs=-1)
@output_option
@asynchronous
async def register(session: Session, types: tuple[str, ...], form: Form) -> int:
    """Register contracts with the schema registry, under the subject `<topic>-value`.

    Each subject is set to BACKWARD_TRANSITIVE first. Without a registry nothing needs registering: ids are derived from
    the schemas. Exit code 1 when the registry refuses one, with its reasons.
    """
    from maypole.services.cli.connection import connected_if_any
    from maypole.services.cli.contract_checks import registered

    url = session.settings.registry_url
    if url is None:
        raise Problem(
            "expected a schema registry, found none: SCHEMA_REGISTRY_URL is not set. Without one there is nothing to register",
            ExitCode.USAGE,
            "SCHEMA_REGISTRY_URL=http://127.0.0.1:8081 maypole schemas register",
        )
    async with connected_if_any(session) as platform:
        chosen = _chosen(types, platform.catalog.view if platform is not None else None)
    rows: list[dict[str, Any]] = await registered(url, chosen)
    print_rows(rows, form, {"type": "TYPE", "subject": "SUBJECT", "id": "ID", "verdict": "VERDICT", "reasons": "REASONS"})
    return ExitCode.DONE if all(row["verdict"] == "registered" for row in rows) else ExitCode.FAILED


def _chosen(types: tuple[str, ...], view: Any) -> list[EventType]:
    from maypole.services.cli.event_types import known_types, type_called

    return [type_called(name, view) for name in types] if types else list(known_types(view).values())
