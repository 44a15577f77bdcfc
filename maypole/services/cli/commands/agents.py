"""`maypole agents`: who takes part."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from maypole.services.cli.interrupts import stopping_with
from maypole.services.cli.output import Form, cell, output_option, print_object, print_rows
from maypole.services.cli.problems import ExitCode, Problem
from maypole.services.cli.session import Session, asynchronous
from maypole.services.cli.teaching import Group, examples

if TYPE_CHECKING:
    from maypole.bus.composition import Platform

COLUMNS: Final = {"agent": "AGENT", "state": "STATE", "instances": "UP", "heard": "HEARD", "on": "ON", "emits": "EMITS"}
_NAMED_MAX: Final = 5
_SUBSCRIPTION: Final = {"on": "ON", "emits": "EMITS", "kind": "KIND", "require": "REQUIRES", "lag": "WAITING"}
_INSTANCE: Final = {
    "instance": "INSTANCE",
    "host": "HOST",
    "pid": "PID",
    "started_at": "STARTED",
    "handled": "HANDLED",
    "dead_lettered": "DEAD LETTERS",
    "late_parts": "LATE PARTS",
    "told_again": "TOLD AGAIN",
    "expired": "EXPIRED",
    "silent_seconds": "SILENT SECONDS",
    "alive": "ALIVE",
}
_BREAKER: Final = {"instance": "INSTANCE", "breaker": "BREAKER", "name": "OF", "state": "STATE", "since": "SINCE", "because": "BECAUSE"}


@click.group(cls=Group, epilog=examples("maypole agents list", "maypole agents show research", "maypole agents retire translate"))
def command() -> None:
    """Agents as they announced themselves in the catalog."""


@command.command("list", epilog=examples("maypole agents list", "maypole agents list -o jsonl"))
@output_option
@asynchronous
async def list_(session: Session, form: Form) -> int:
    """Every agent, whether it is running, and what it reacts to.

    Flows wait for agents that are running, silent or stopped; they do not wait for retired ones. UP is how many of its
    instances run, HEARD when the last of them was heard. Breakers that are not closed are named below.
    """
    from maypole.services.cli.agent_status import agent_rows, breaker_told, narrowed
    from maypole.services.cli.connection import connected

    now = datetime.now(UTC)
    async with connected(session) as platform:
        rows = agent_rows(platform.catalog.view, now)
    if not rows and form == "table":
        click.echo("no agent has announced itself yet; start some: maypole run maypole.services.research", err=True)
    print_rows(narrowed(rows, now) if form == "table" else rows, form, COLUMNS)
    for row in rows:
        for told in dict.fromkeys(map(breaker_told, row["breakers"])):
            click.echo(f"{row['agent']}: {told}; maypole agents show {row['agent']} says how many", err=True)
        if row["expired"]:
            click.echo(
                f"{row['agent']}: {row['expired']} records expired before it read them; maypole agents show {row['agent']}", err=True
            )
    return ExitCode.DONE


@command.command("show", epilog=examples("maypole agents show analysis", "maypole agents show analysis -o json"))
@click.argument("name")
@output_option
@asynchronous
async def show(session: Session, name: str, form: Form) -> int:
    """One agent: its subscriptions with what they require, its instances, its breakers that are not closed, and how many records wait."""
    from maypole.bus.choreography import types_in
    from maypole.services.cli.agent_status import agent_rows, breaker_rows, instance_rows
    from maypole.services.cli.connection import connected

    now = datetime.now(UTC)
    async with connected(session) as platform:
        view = platform.catalog.view
        _require(platform, name)
        row = next(row for row in agent_rows(view, now) if row["agent"] == name)
        declared = view.agents[name]["subscriptions"]
        waiting = await _waiting(platform, name, [topic for each in declared for topic in types_in(each["on"])])
        subscriptions = [{**each, "lag": sum(waiting.get(topic, 0) for topic in types_in(each["on"]))} for each in declared]
        instances = instance_rows(view, name, now)
    if form != "table":
        print_object({**row, "subscriptions": subscriptions, "instances": instances, "schemas": view.agents[name].get("schemas", {})}, form)
        return ExitCode.DONE
    print_object({field: row[field] for field in ("agent", "state", "version", "temporary")}, form)
    click.echo()
    shown = [{**each, "on": _awaited(each), "require": [_rule(rule) for rule in each["require"]]} for each in subscriptions]
    print_rows(shown, form, _SUBSCRIPTION)
    if instances:
        click.echo()
        print_rows(instances, form, _INSTANCE)
    breakers = breaker_rows(instances)
    if breakers:
        click.echo()
        print_rows(breakers, form, _BREAKER)
    return ExitCode.DONE


@command.command("retire", epilog=examples("maypole agents retire translate", "maypole agents retire translate --yes"))
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@asynchronous
async def retire(session: Session, name: str, yes: bool) -> int:
    """Take an agent out of service: flows that start from now on do not wait for it.

    Flows that have already started still do. The agent announces itself again when it is run again.
    """
    from maypole.services.cli.agent_status import agent_rows
    from maypole.services.cli.connection import connected

    async with connected(session) as platform:
        _require(platform, name)
        row = next(row for row in agent_rows(platform.catalog.view, datetime.now(UTC)) if row["agent"] == name)
        if row["retired"]:
            click.echo(f"{name} is retired already", err=True)
            return ExitCode.DONE
        if not yes:
            _confirm(name, row)
        await platform.catalog.retire(name)
    for told in _retired(name, row["instances"]):
        click.echo(told, err=True)
    return ExitCode.DONE


def _require(platform: Platform, name: str) -> None:
    from difflib import get_close_matches

    agents = platform.catalog.view.agents
    if name in agents:
        return
    near, known = get_close_matches(name, agents, n=2), sorted(agents)
    others = f" and {len(known) - _NAMED_MAX} more" if len(known) > _NAMED_MAX else ""
    there = f"; there is {', '.join(known[:_NAMED_MAX])}{others}" if known else ": none has announced itself"
    meant = f"; did you mean {' or '.join(near)}?" if near else there
    raise Problem(f"expected the name of an agent in the catalog, found {name!r}{meant}", ExitCode.NOT_FOUND, "maypole agents list")


def _retired(name: str, running: int) -> list[str]:
    told = [f"{name} is retired: flows that start from now on do not wait for it"]
    return [*told, _still_running(running)] if running else told


def _still_running(instances: int) -> str:
    if instances == 1:
        return "1 of its instances still runs; it goes on, as an observer of new flows: what it does in them is neither awaited nor undone"
    return (
        f"{instances} of its instances still run; they go on, as observers of new flows: what they do in them is neither awaited nor undone"
    )


def _confirm(name: str, row: dict[str, Any]) -> None:
    running = f" {_still_running(row['instances'])}." if row["instances"] else ""
    question = f"Flows that start from now on will not wait for {name}, and it will take no part in them.{running} Retire it?"
    if not sys.stdin.isatty():
        raise Problem(f"expected somebody to confirm, found no terminal. {question}", ExitCode.USAGE, f"maypole agents retire {name} --yes")
    with stopping_with(None):
        click.confirm(question, abort=True, err=True)


def _awaited(subscription: dict[str, Any]) -> str:
    """`a.b`, or of a join `a.b + c.d within 30 s`."""
    from maypole.bus.choreography import types_in

    within_ms = subscription.get("within_ms")
    return " + ".join(types_in(subscription["on"])) + (f" within {within_ms / 1000:g} s" if within_ms is not None else "")


def _rule(rule: Mapping[str, Any]) -> str:
    """`confidence at_least 0.7`; of a part of a join `score.ready: score at_least 300`."""
    of = f"{rule['on']}: " if "on" in rule else ""
    value = "" if rule["value"] is None else f" {cell(rule['value'])}"
    return f"{of}{rule['field']} {rule['rule']}{value}"


async def _waiting(platform: Platform, group: str, topics: list[str]) -> dict[str, int]:
    """Records written and not yet committed by the agent, by topic."""
    from maypole.bus.ports import TopicPartition

    cluster = platform.transport.cluster
    counts = await cluster.topics()
    places = [TopicPartition(topic, partition) for topic in topics for partition in range(counts.get(topic, 0))]
    committed = await cluster.committed(group, places)
    watermarks = await cluster.watermarks(places)
    waiting: dict[str, int] = {}
    for at in places:
        oldest, end = watermarks[at]
        waiting[at.topic] = waiting.get(at.topic, 0) + end - max(oldest, committed.get(at, oldest))
    return waiting
