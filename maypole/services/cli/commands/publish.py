"""`maypole publish`: start a flow, and if asked stay until it has ended."""

from __future__ import annotations

import re
from typing import Any, Final

import click

from maypole.schemas.envelope import TEXT_BYTES_MAX
from maypole.services.cli.output import Form, output_option, print_object, warn
from maypole.services.cli.problems import ExitCode
from maypole.services.cli.session import Session, asynchronous
from maypole.services.cli.teaching import Command, examples

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
_SECONDS_MIN: Final = 0.001
_DAYS_MAX: Final = 3650
"""Ten years, so that the moment it leads to is one that a calendar knows."""
DEADLINE_DAYS_MAX: Final = 7
"""What a deadline may be at most, said here, too, so that it can be told before anything else is known."""


_SHOWN_MAX: Final = 40


class Duration(click.ParamType[float, str | float]):
    name = "duration"

    def __init__(self, days_max: int = _DAYS_MAX) -> None:
        self._days_max = days_max

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)", str(value))
        seconds = 0.0 if match is None else float(match[1]) * _UNITS[match[2]]
        if not _SECONDS_MIN <= seconds <= self._days_max * _UNITS["d"]:
            found = str(value) if len(str(value)) <= _SHOWN_MAX else f"{str(value)[:_SHOWN_MAX]}..."
            self.fail(f"expected a time like 500ms, 60s, 5m, 1h or 2d, from 1ms to {self._days_max}d, found {found!r}", param, ctx)
        return seconds


class Key(click.ParamType[str, str]):
    name = "key"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        key = str(value)
        if not (key and key.isprintable() and len(key.encode()) <= TEXT_BYTES_MAX):
            found = repr(key) if len(key) <= _SHOWN_MAX else f"{key[:_SHOWN_MAX]!r}... ({len(key)} characters)"
            expected = f"printable text that is not empty, at most {TEXT_BYTES_MAX} bytes in UTF-8"
            self.fail(f"expected {expected}, found {found}; leave the option out to do without", param, ctx)
        return key


@click.command(
    cls=Command,
    epilog=examples(
        """maypole publish research.requested --data '{"question": "What does finally do?"}' --follow""",
        "maypole publish order.placed --data @order.json --key order-17 -o json",
        "cat order.json | maypole publish order.placed --data - --idempotency-key order-17",
    )
    + """

\b
Exit codes: 0 published; 1 refused: the idempotency key started a flow with another event, or the registry said no or is away.
With --follow: 0 committed, 4 what it did was undone, 6 it waits for a person, 1 nobody subscribes, 124 not finished in time.""",
)
@click.argument("event_type", metavar="TYPE")
@click.option("--data", metavar="JSON|@FILE|-", help="The event's fields as JSON: itself, in a file, or on standard input.")
@click.option("--key", type=Key(), metavar="K", help="A business key (an order's number, a customer) that the flow can be found by.")
@click.option(
    "--idempotency-key",
    type=Key(),
    metavar="K",
    help="The same key starts the same flow: agents act once, however often this is published.",
)
@click.option(
    "--deadline",
    type=Duration(DEADLINE_DAYS_MAX),
    metavar="60s",
    help="How long the flow may take, up to 7 days; recorded with it. Default: what TYPE says, else 1h",
)
@click.option("--follow", is_flag=True, help="Show the flow until it has ended.")
@click.option("--timeout", type=Duration(), metavar="60s", default="60s", show_default=True, help="With --follow: how long to wait.")
@output_option
@asynchronous
async def command(
    session: Session,
    event_type: str,
    data: str | None,
    key: str | None,
    idempotency_key: str | None,
    deadline: float | None,
    follow: bool,
    timeout: float,
    form: Form,
) -> int:
    """Start a flow by publishing an event of TYPE.

    The data is held to the type's contract first; what breaks it is told and nothing is published. Of a type that only agents
    declare that is its fields and their types; rules beyond them (a range, a pattern) are its agents' to refuse. The flow's
    ids go to standard output as soon as the broker has the event; with --follow -o json when the flow was watched, because
    one object tells them and what came of the flow: its `state`, the `reason` why it did not go on as it began, how it was
    `degraded`, and the `steps` that ended (-o jsonl: in two lines, the ids at once).
    """
    from maypole.bus.composition import open_tracing
    from maypole.services.cli.bystanders import bystanders
    from maypole.services.cli.connection import connected, trace_url
    from maypole.services.cli.event_types import type_called
    from maypole.services.cli.flow_ending import told_end, told_without_subscriber
    from maypole.services.cli.flow_views import open_view
    from maypole.services.cli.publishing import parse_data, publish, read_data
    from maypole.services.cli.repetition import what_stands
    from maypole.services.cli.saga_views import UNWATCHED, outcome
    from maypole.services.cli.watching import watch
    from maypole.services.following import take_vantage

    body = parse_data(read_data(data))
    async with connected(session) as platform:
        found = type_called(event_type, platform.catalog.view)
        vantage = await take_vantage(platform, event_type, idempotency_key)
        stands = [] if idempotency_key is None else await what_stands(platform, event_type, idempotency_key, key, deadline)
        with open_tracing(session.settings, "maypole-cli", "1") as tracing:
            published = await publish(
                platform.bus("maypole-cli", tracing),
                platform,
                found,
                body,
                business_key=key,
                idempotency_key=idempotency_key,
                deadline_seconds=deadline,
            )
        told = {
            "flow_id": published.flow_id,
            "event_id": published.event_id,
            "trace_id": published.trace_id,
            "topic": published.topic,
            "partition": published.partition,
            "offset": published.offset,
            "trace_url": trace_url(session.settings, published.trace_id),
        }
        if not (follow and form == "json"):
            print_object(told, form)
        warn(stands)
        if not follow:
            if not published.subscribers:
                warn([told_without_subscriber(event_type, bystanders(platform.catalog.view, event_type))])
            return ExitCode.DONE
        came = UNWATCHED
        try:
            with open_view() as view:
                picture = await watch(platform, published.flow_id, vantage, view, timeout)
            came = outcome(picture)
        finally:
            # Whoever interrupts the watching still gets the ids of what was published.
            if form != "table":
                ids = told if form == "json" else {"flow_id": published.flow_id}
                print_object({**ids, **came}, form)
        return told_end(picture, timeout)
