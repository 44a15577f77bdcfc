"""`maypole demo`: everything at once, for somebody who sees it for the first time."""

from __future__ import annotations

import logging
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from maypole.services.cli.corpus_option import check_corpus, corpus_option
from maypole.services.cli.output import Form, output_option, print_object
from maypole.services.cli.problems import ExitCode, Problem
from maypole.services.cli.program import command as typed
from maypole.services.cli.session import Session, asynchronous
from maypole.services.cli.teaching import Command, examples

if TYPE_CHECKING:
    from maypole.bus import Agent, Published
    from maypole.bus.composition import Platform
    from maypole.services.cli.flow_picture import FlowPicture
    from maypole.settings import Settings

QUESTION: Final = "How do try and finally interact?"
TIMEOUT_SECONDS: Final = 60.0
_SENTENCES_SHOWN: Final = 3
_NAMES: Final = ("research", "analysis", "report", "delivery")


@click.command(
    cls=Command,
    epilog=examples(
        "maypole demo",
        'maypole demo --question "What does the with statement do?"',
        'maypole demo --corpus ./docs --question "How is it installed?"',
        "maypole demo --fail analysis",
        "maypole demo --fail delivery -o json",
    ),
)
@click.option("--question", default=QUESTION, show_default=True, help="What to find out.")
@corpus_option
@click.option("--fail", type=click.Choice(_NAMES), help="Let this agent fail for good, to see what happens then.")
@output_option
@asynchronous
async def command(session: Session, question: str, fail: str | None, form: Form) -> int:
    """Embedded Kafka, four agents that know nothing of each other, and one question that becomes a cited report.

    With --fail: what the agents before it have done is undone, the last first.

    Everything is stopped in the end; the report stays.

    -o json prints one object: the ids, where the `report` is, how many things each agent has `kept` of the flow, and what
    publish --follow tells: `state`, `reason`, `degraded` and `steps`.
    """
    from maypole.bus.composition import open_platform
    from maypole.bus.kafka.embedded import EmbeddedKafka
    from maypole.services.cli.writable import require_writable

    settings = session.settings
    _check(question)
    require_writable(settings.home)
    session.share()
    agents = _agents(fail)
    check_corpus(session)
    if fail is not None and not session.verbosity:
        logging.getLogger("maypole.bus.conclusion").setLevel(logging.CRITICAL)  # what it would log is what this shows
    reports = settings.home / "reports"
    # The broker forgets everything when it stops, so what agents keep beside it would be litter.
    with tempfile.TemporaryDirectory(prefix="maypole-demo-") as state, EmbeddedKafka() as kafka:
        click.echo(f"Kafka inside this process, {len(agents)} agents, one question: {click.style(question, bold=True)}\n", err=True)
        here = replace(session.beside(kafka.bootstrap, "maypole demo", registry=False), home=Path(state))
        async with open_platform(here) as platform:
            published, picture, kept, code = await _flow(platform, agents, question, reports)
    if form == "table":
        _tell(picture, published, settings, fail)
    else:
        print_object(_told(picture, published, settings, kept), form)
    return code


def _check(question: str) -> None:
    from pydantic import ValidationError

    from maypole.schemas.codec import refusal
    from maypole.schemas.research import ResearchRequested

    try:
        ResearchRequested(question=question)
    except ValidationError as error:
        message = f"--question: {refusal(error, ResearchRequested.event_type)}"
        raise Problem(message, ExitCode.USAGE, f"maypole demo --question {shlex.quote(QUESTION)}") from None


def _agents(fail: str | None) -> list[Agent]:
    from maypole.services.cli.failing import failing
    from maypole.services.cli.targets import REFERENCE_AGENTS, load_agents

    return [failing(agent) if agent.name == fail else agent for agent in load_agents(REFERENCE_AGENTS)]


async def _flow(
    platform: Platform, agents: list[Agent], question: str, reports: Path
) -> tuple[Published, FlowPicture, Mapping[str, int], ExitCode]:
    from maypole.bus.composition import open_tracing
    from maypole.services.cli.coordinating import coordinating
    from maypole.services.cli.event_types import type_called
    from maypole.services.cli.flow_ending import told_end
    from maypole.services.cli.flow_views import open_view
    from maypole.services.cli.publishing import publish
    from maypole.services.cli.running import running
    from maypole.services.cli.watching import watch
    from maypole.services.following import take_vantage

    async with coordinating(platform), running(platform, agents):
        asked = type_called("research.requested", None)
        vantage = await take_vantage(platform, asked.name)
        with open_tracing(platform.settings, "maypole-cli", "1") as tracing:
            data = {"question": question, "deliver_to": str(reports)}
            published = await publish(platform.bus("maypole-cli", tracing), platform, asked, data)
        with open_view() as view:
            picture = await watch(platform, published.flow_id, vantage, view, TIMEOUT_SECONDS)
        click.echo(err=True)
        code = told_end(picture, TIMEOUT_SECONDS, dlq_at_hand=False)
        kept = _kept(platform.home, agents, published.flow_id)
        if picture.failure is not None:
            said = ", ".join(f"{name} {count or 'nothing'}" for name, count in kept.items())
            click.echo(f"  what they keep of it now: {said}", err=True)
        return published, picture, kept, code


def _kept(home: Path, agents: list[Agent], flow: str) -> Mapping[str, int]:
    from maypole.services.artefacts import Artefacts

    return {agent.name: Artefacts(home / "agents" / agent.name).count(flow) for agent in agents}


def _told(picture: FlowPicture, published: Published, settings: Settings, kept: Mapping[str, int]) -> dict[str, object]:
    from maypole.services.cli.connection import trace_url
    from maypole.services.cli.saga_views import outcome

    return {
        "flow_id": published.flow_id,
        "event_id": published.event_id,
        "trace_id": published.trace_id,
        "trace_url": trace_url(settings, published.trace_id),
        "report": _place(picture),
        "kept": kept,
        **outcome(picture),
    }


def _tell(picture: FlowPicture, published: Published, settings: Settings, fail: str | None) -> None:
    from maypole.services.cli.connection import trace_url

    click.echo()
    where = _result(picture)
    if where is not None:
        click.echo(f"report  {click.style(where, bold=True)}")
    click.echo(f"flow    {published.flow_id}")
    click.echo(f"trace   {published.trace_id}")
    url = trace_url(settings, published.trace_id)
    click.echo(f"jaeger  {url or 'nothing was exported: start one with `make local`, then run this again'}")
    click.echo("\nTry next:")
    for line in _next(where, fail):
        click.echo(f"  {line}")


def _result(picture: FlowPicture) -> str | None:
    """Print what came of it, in a few lines; the place of the report, if there is one."""
    for inconclusive in picture.bodies("research.inconclusive"):
        click.echo(f"No report: {inconclusive['reason']} (best confidence {inconclusive['best_confidence']:.2f}).")
        click.echo("An honest end: agents do not make up what the corpus does not hold.\n")
    if picture.failure is not None and picture.buried is not None:
        click.echo(
            f"{picture.failure.agent} put the event on its dead-letter topic, unchanged, with the reason beside it: {picture.buried.place}"
        )
        click.echo(f"{_left(picture)}\n")
        return None
    for analysis in picture.bodies("analysis.ready"):
        sentences = analysis["sentences"]
        for sentence in sentences[:_SENTENCES_SHOWN]:
            click.echo(click.wrap_text(sentence["text"], width=100, initial_indent="  ", subsequent_indent="  "))
            click.echo(click.style(f"    {', '.join(sentence['sources'])}", dim=True))
        if len(sentences) > _SENTENCES_SHOWN:
            click.echo(click.style(f"  ({len(sentences) - _SENTENCES_SHOWN} more in the report)", dim=True))
        click.echo()
    return _place(picture)


def _place(picture: FlowPicture) -> str | None:
    return next((str(delivered["where"]) for delivered in picture.bodies("report.delivered")), None)


def _left(picture: FlowPicture) -> str:
    from maypole.services.saga import State

    assert picture.state is not None
    if picture.state.state is State.COMPENSATED:
        undone = ", ".join(step.agent for step in picture.story.undone)
        return f"Nothing after it ran, and nothing of the flow is left{f': what {undone} had made is gone' if undone else ''}."
    return "Nothing after it ran. What the agents before it made is left as it is: nobody has undone it."


def _next(where: str | None, fail: str | None) -> list[str]:
    lines = [typed("demo", "--question", "What does the with statement do?")]
    if where is not None:
        lines.insert(0, f"less {shlex.quote(where)}")
    if fail is None:
        lines.append(typed("demo", "--fail", "analysis") + "     # what happens when an agent fails for good")
    lines.append(typed("dev") + "     # keeps Kafka and the agents up for a second terminal, with dead letters to look at")
    lines.append(typed("new", "agent", "translate", "--on", "report.published", "--emits", "report.translated"))
    return lines
