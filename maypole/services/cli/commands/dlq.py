"""`maypole dlq`: what agents could not handle, and what becomes of it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from maypole.services.cli.flow_orders import who_option
from maypole.services.cli.output import Form, as_json, output_option, print_object, print_rows
from maypole.services.cli.problems import ExitCode, Problem
from maypole.services.cli.program import command as typed
from maypole.services.cli.program import in_text
from maypole.services.cli.session import Session, asynchronous
from maypole.services.cli.teaching import Group, examples

if TYPE_CHECKING:
    from maypole.bus.composition import Platform
    from maypole.bus.ports import Delivery
    from maypole.bus.redrive import Copies
    from maypole.services.cli.letter_targets import Target
    from maypole.services.cli.redriving import Verdict

_GROUPS: Final = {
    "agent": "AGENT", "reason": "REASON", "count": "COUNT", "redriven": "REDRIVEN",
    "first": "FIRST", "last": "NEWEST", "example": "NEWEST ID",
}  # fmt: skip
_EACH: Final = {
    "id": "ID",
    "reason": "REASON",
    "attempts": "ATTEMPTS",
    "redriven": "REDRIVEN",
    "first_failed_at": "FAILED",
    "error": "ERROR",
}
_SHOWN: Final = ("id", "reason", "error", "attempts", "first_failed_at", "replays", "redriven", "flow_id", "event_id", "key")
_BECOMES: Final = {"action": "ACTION", "why": "WHY", "reason": "REASON", "count": "COUNT", "example": "EXAMPLE", "detail": "DETAIL"}
_BY_A_NEW_FLOW: Final = ("decided_flow", "flow_untold")
"""Refusals of a letter whose event may still start a flow of its own."""
_FLOWS: Final = {"id": "ID", "new_flow_id": "NEW FLOW", "sent_to": "EVENT", "detail": "GOES"}
_reasons = click.option(
    "--reason", "reasons", multiple=True, metavar="REASON", help="Only those with this reason; may be given several times."
)


@click.group(
    cls=Group,
    epilog=examples("maypole dlq list", "maypole dlq show analysis/2/0", "maypole dlq redrive analysis --reason rejected --dry-run"),
)
def command() -> None:
    """Dead letters: events that an agent could not handle, kept as they were, with the reason beside them."""


@command.command("list", epilog=examples("maypole dlq list", "maypole dlq list analysis --each", "maypole dlq list --each -o jsonl"))
@click.argument("agent", required=False)
@_reasons
@click.option("--flow", metavar="FLOW", help="Only the letters of this flow.")
@click.option("--each", is_flag=True, help="Every letter by itself, not how many there are of a kind.")
@output_option
@asynchronous
async def list_(session: Session, agent: str | None, reasons: tuple[str, ...], flow: str | None, each: bool, form: Form) -> int:
    """How many lie there, by agent and reason, and how many of them were sent again since.

    With --each the oldest comes first; as lines of JSON they come as they are read, partition by partition.
    """
    from maypole.services.cli.connection import connected_transport
    from maypole.services.cli.dead_letters import agents_with_letters, group, letter_row, read_copies, read_letters

    _check_reasons(reasons)
    async with connected_transport(session) as transport:
        agents = await agents_with_letters(transport.cluster)
        if agent is not None and agent not in agents:
            known = ", ".join(agents) or "none"
            raise Problem(
                f"expected an agent with a dead-letter topic, found {agent!r}; there is {known}", ExitCode.NOT_FOUND, "maypole agents list"
            )
        chosen = agents if agent is None else [agent]
        copies = await read_copies(transport, chosen)
        rows: list[dict[str, Any]] = []
        found = 0
        async for record in read_letters(transport, chosen):
            row = letter_row(record, copies)
            if (flow is not None and row["flow_id"] != flow) or (reasons and row["reason"] not in reasons):
                continue
            found += 1
            if each and form == "jsonl":
                click.echo(as_json(row))
            else:
                rows.append(row)
    if flow is not None and not found:
        await _require_flow(session, flow)
    if each:
        if form != "jsonl":
            rows.sort(key=lambda row: str(row["first_failed_at"]))
            print_rows(rows, form, _EACH)
        return ExitCode.DONE
    groups = group(rows)
    print_rows(groups, form, _GROUPS)
    if form == "table":
        click.echo(f"try: {typed('dlq', 'show', groups[0]['example'])}" if groups else "no dead letters", err=True)
    return ExitCode.DONE


async def _require_flow(session: Session, flow: str) -> None:
    """No dead letter of a flow is good news only where there is such a flow."""
    from maypole.services.cli.connection import connected
    from maypole.services.cli.flow_histories import story_of

    async with connected(session) as platform:
        await story_of(platform, flow)


@command.command("show", epilog=examples("maypole dlq show analysis/2/0", "maypole dlq show analysis/2/0 -o json"))
@click.argument("place", metavar="AGENT/PARTITION/OFFSET")
@output_option
@asynchronous
async def show(session: Session, place: str, form: Form) -> int:
    """One dead letter: why it is there, its headers, and its value as far as it can be decoded.

    What cannot be read is named by its header, or by the byte and the field of the value where reading broke.
    """
    from maypole.services.cli.connection import connected
    from maypole.services.cli.dead_letters import read_copies
    from maypole.services.cli.letter_contents import opened
    from maypole.services.cli.letter_targets import letter_at, parse_place

    wanted = parse_place(place)
    async with connected(session) as platform:
        record = await letter_at(platform.transport, wanted)
        copies = await read_copies(platform.transport, [wanted.agent])
        letter = await opened(platform, record, copies)
        sentence = await _way_on(platform, record, copies) if form == "table" else ""
    if form != "table":
        print_object(letter, form)
        return ExitCode.DONE
    print_object({name: letter[name] for name in _SHOWN} | {"from": f"{letter['topic']}/{letter['partition']}/{letter['offset']}"}, form)
    _section("headers", letter["headers_error"])
    print_object(letter["headers"], form)
    _section("value" if letter["schema_id"] is None else f"value (schema id {letter['schema_id']})", letter["data_error"])
    if letter["data"] is not None:
        click.echo(as_json(letter["data"], indent=2))
    if letter["data_error"] is not None:
        click.echo(f"{letter['value_bytes']} bytes that begin {letter['value_begins'] or 'nowhere'}")
    click.echo(f"\n{in_text(sentence)}", err=True)
    return ExitCode.DONE


async def _way_on(platform: Platform, record: Delivery, copies: Copies) -> str:
    """The command that sends it again, or why there is none: found out as a dry run does."""
    from maypole.services.cli.redriving import Action, Judge, Wish

    again = await Judge(platform, copies, Wish()).whole_verdict(record)
    if again.sends:
        return f"try: {typed('dlq', 'redrive', str(again.place))}   ({again.detail})"
    if again.action is Action.SKIPPED or again.why not in _BY_A_NEW_FLOW:
        return f"nothing to redrive: {again.detail}"
    anew = await Judge(platform, copies, Wish(as_new_flow=True)).whole_verdict(record)
    if anew.sends:
        return f"try: {typed('dlq', 'redrive', str(anew.place), '--as-new-flow')}   ({again.detail}; a new flow goes {anew.detail})"
    return f"nothing to redrive: {again.detail}; and as a new flow: {anew.detail}"


@command.command(
    "redrive",
    epilog=examples(
        "maypole dlq redrive analysis/2/0",
        "maypole dlq redrive analysis --reason attempts_exhausted --dry-run",
        "maypole dlq redrive analysis --reason attempts_exhausted --max 10 --yes",
        "maypole dlq redrive analysis/2/0 --as-new-flow",
    )
    + """

\b
Exit codes: 0 all were sent, or had been before; 1 some are refused; 3 there is no such letter. With --dry-run: what they would be.""",
)
@click.argument("what", metavar="AGENT/PARTITION/OFFSET|EVENT_ID|AGENT")
@_reasons
@click.option("--max", "letters_max", type=click.IntRange(1), metavar="N", help="Send at most so many, the oldest first.")
@click.option("--as-new-flow", is_flag=True, help="Start a new flow with the letter's event. The same letter always starts the same flow.")
@click.option("--dry-run", is_flag=True, help="Say what would become of each letter, and send nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--again", is_flag=True, help="Also what was redriven before.")
@who_option
@click.option("--replays-max", type=click.IntRange(1), metavar="N", help="Refuse what was sent again so often. Default: 3")
@output_option
@asynchronous
async def redrive(
    session: Session,
    what: str,
    reasons: tuple[str, ...],
    letters_max: int | None,
    as_new_flow: bool,
    dry_run: bool,
    yes: bool,
    again: bool,
    by: str,
    replays_max: int | None,
    form: Form,
) -> int:
    """Send dead letters again: to the agent that failed only.

    A step runs again only where its failure decided nothing: its flow cannot be read, the agent only observes it, or the step
    is optional and its flow still runs: then its journal is told who gives it another chance, and the flow waits for it again.
    Anything else is refused; `--as-new-flow` starts a new flow with the same event instead. What was redriven once is skipped.
    """
    from maypole.bus.composition import open_tracing
    from maypole.bus.redrive import REPLAYS_MAX_DEFAULT
    from maypole.services.cli.connection import connected
    from maypole.services.cli.dead_letters import read_copies
    from maypole.services.cli.letter_targets import target_of
    from maypole.services.cli.redriving import Judge, Wish, judge_all, send_all

    _check_reasons(reasons)
    wish = Wish(as_new_flow, again, replays_max or REPLAYS_MAX_DEFAULT, letters_max)
    async with connected(session) as platform:
        target = await target_of(platform.transport, what)
        judge = Judge(platform, await read_copies(platform.transport, target.agents), wish)
        verdicts = await judge_all(
            judge, target.letters, lambda record: target.wanted(record) and _has_reason(record.headers, reasons), wish
        )
        if dry_run:
            _print(verdicts, form, done=False)
            return _ended(verdicts, wish.replays_max)
        if target.wide and not yes and any(verdict.sends for verdict in verdicts):
            _confirm(verdicts)
        with open_tracing(session.settings, "maypole-cli", "1") as tracing:
            bus = platform.bus("maypole-cli", tracing)
            done = [verdict async for verdict in send_all(platform, bus, target.letters, verdicts, by)]
        _print(done, form, done=True)
        _say(platform, target, done)
    return _ended(done, wish.replays_max)


def _ended(done: Sequence[Verdict], replays_max: int) -> ExitCode:
    from maypole.services.cli.redriving import Action

    refused = [verdict for verdict in done if verdict.action is Action.REFUSED]
    if not refused:
        return ExitCode.DONE
    first = refused[0]
    others = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
    hint = typed("dlq", "redrive", str(first.place), "--as-new-flow") if first.why in _BY_A_NEW_FLOW else None
    if first.why == "replays_max":
        hint = typed("dlq", "redrive", str(first.place), "--replays-max", str(replays_max + 1))
    raise Problem(
        f"{first.place} is refused ({first.why}): {first.detail}{others}", ExitCode.FAILED, hint or typed("dlq", "show", str(first.place))
    )


def _print(verdicts: Sequence[Verdict], form: Form, *, done: bool) -> None:
    rows = [verdict.row() for verdict in sorted(verdicts, key=lambda verdict: (verdict.place.agent, verdict.at_ms))]
    if form != "table":
        print_rows(rows, form, {})
        return
    if done and (flows := [row for row in rows if row["action"] == "flow"]):
        print_rows(flows, form, _FLOWS)
        rows = [row for row in rows if row["action"] != "flow"]
    print_rows(_histogram(rows), form, _BECOMES)


def _histogram(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    counts: Counter[tuple[str, str, str]] = Counter()
    firsts: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in rows:
        kind = row["action"], row["why"], row["reason"]
        counts[kind] += 1
        firsts.setdefault(kind, row)
    return [
        {"action": action, "why": why, "reason": reason, "count": count, "example": firsts[action, why, reason]["id"],
         "detail": firsts[action, why, reason]["detail"]}
        for (action, why, reason), count in counts.most_common()
    ]  # fmt: skip


def _confirm(verdicts: Sequence[Verdict]) -> None:
    from maypole.services.cli.output import cell, table

    shown = _histogram([verdict.row() for verdict in verdicts])
    for line in table([[cell(row[name]) for name in _BECOMES] for row in shown], list(_BECOMES.values())):
        click.echo(line, err=True)
    count = sum(verdict.sends for verdict in verdicts)
    question = f"Send {count} dead letter{'s' if count != 1 else ''} again?"
    if not sys.stdin.isatty():
        raise Problem(
            f"expected somebody to confirm, found no terminal. {question}",
            ExitCode.USAGE,
            "the same with --yes, or --dry-run to look first",
        )
    click.confirm(question, abort=True, err=True)


def _say(platform: Platform, target: Target, done: Sequence[Verdict]) -> None:
    from maypole.services.cli.redriving import Action

    sent = [verdict for verdict in done if verdict.sends]
    again = [verdict for verdict in done if verdict.why in ("redriven_before", "flow_before")]
    click.echo(f"{len(sent)} sent, {len(done) - len(sent)} not", err=True)
    if again:
        click.echo(f"{len(again)} had been redriven before; --again sends them once more", err=True)
    for agent in sorted({verdict.place.agent for verdict in sent if verdict.action in (Action.STEP, Action.CHANCE)}):
        if not platform.catalog.view.alive(agent, platform.now()):
            warning = click.style("warning:", fg="yellow")
            click.echo(in_text(f"{warning} {agent} is not running; it takes what waits for it when it runs again"), err=True)


def _check_reasons(reasons: Sequence[str]) -> None:
    from maypole.bus.dead_letters import Reason

    for reason in reasons:
        if reason not in list(Reason):
            message = f"--reason: expected one of {', '.join(Reason)}, found {reason!r}"
            raise Problem(message, ExitCode.USAGE, "maypole dlq list")


def _has_reason(headers: Sequence[tuple[str, bytes | None]], reasons: Sequence[str]) -> bool:
    return not reasons or any(
        name == "dlq-reason" and value is not None and value.decode(errors="replace") in reasons for name, value in headers
    )


def _section(name: str, fault: str | None) -> None:
    click.echo(f"\n{click.style(name, bold=True)}{click.style(f'  cannot be read: {fault}', fg='red') if fault else ''}")
