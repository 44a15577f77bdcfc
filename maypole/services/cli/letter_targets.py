"""Which dead letters somebody means: one place, one event, or all of an agent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from maypole.bus.ports import Delivery, Transport
from maypole.schemas.envelope import ID
from maypole.services.cli.dead_letters import Place, agents_with_letters, place_of, read_letter, read_letters
from maypole.services.cli.problems import ExitCode, Problem

_PLACE_FORM = "expected AGENT/PARTITION/OFFSET, as in analysis/2/0, found {!r}"


@dataclass(frozen=True, slots=True)
class Target:
    """`letters` reads them anew with every call, with others of the same agents; `wanted` tells which are meant."""

    agents: tuple[str, ...]
    letters: Callable[[], AsyncIterator[Delivery]]
    wanted: Callable[[Delivery], bool]
    wide: bool
    """More than one may be meant, so whoever meant it is asked."""


def parse_place(text: str) -> Place:
    """Raises `Problem`."""
    try:
        return Place.parse(text)
    except ValueError:
        raise Problem(_PLACE_FORM.format(text), ExitCode.USAGE, "maypole dlq list") from None


async def letter_at(transport: Transport, place: Place) -> Delivery:
    """Raises `Problem`."""
    record = await read_letter(transport, place)
    if record is None:
        message = f"expected a dead letter at {place}, found none: it never was there, or retention has deleted it"
        raise Problem(message, ExitCode.NOT_FOUND, "maypole dlq list")
    return record


async def target_of(transport: Transport, what: str) -> Target:
    """`what` is `analysis/2/0`, an event's id, or an agent's name. Raises `Problem`."""
    if "/" in what:
        record = await letter_at(transport, parse_place(what))
        return Target((place_of(record).agent,), lambda: _only(record), lambda _: True, wide=False)
    agents = await agents_with_letters(transport.cluster)
    if what in agents:
        return Target((what,), lambda: read_letters(transport, [what]), lambda _: True, wide=True)
    about = [record async for record in read_letters(transport, agents) if _event_id(record) == what]
    if not about:
        known = ", ".join(agents) or "none"
        message = f"expected an agent with dead letters ({known}), AGENT/PARTITION/OFFSET, or the id of an event in one, found {what!r}"
        raise Problem(message, ExitCode.NOT_FOUND, "maypole dlq list")
    owners = {place_of(record).agent for record in about}
    if len(owners) > 1:
        places = ", ".join(str(place_of(record)) for record in about)
        raise Problem(
            f"expected one agent that could not handle {what}, found {len(owners)}: {places}",
            ExitCode.USAGE,
            f"maypole dlq show {place_of(about[0])}",
        )
    (owner,) = owners
    return Target((owner,), lambda: _each(about), lambda _: True, wide=False)


async def _only(record: Delivery) -> AsyncIterator[Delivery]:
    yield record


async def _each(records: list[Delivery]) -> AsyncIterator[Delivery]:
    for record in records:
        yield record


def _event_id(record: Delivery) -> str | None:
    value = dict(record.headers).get(ID)
    return None if value is None else value.decode(errors="replace")
