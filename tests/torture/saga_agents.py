"""Three agents that leave something outside, and take it back when they are told to. Some flows are refused on the way.

What they leave lies in `SAGA_EFFECTS`, a folder that outlives their processes.
"""

from __future__ import annotations

import os
from pathlib import Path

from maypole.bus import Agent, Context, Event, Reject
from maypole.services.artefacts import Artefacts

EFFECTS = "SAGA_EFFECTS"


class Ordered(Event, type="sagas.ordered"):
    number: int


class Booked(Event, type="sagas.booked"):
    number: int


class Charged(Event, type="sagas.charged"):
    number: int


class Shipped(Event, type="sagas.shipped"):
    number: int


booking, charging, shipping = Agent("booking"), Agent("charging"), Agent("shipping")
AGENTS = (booking, charging, shipping)


def left_by(agent: str) -> Artefacts:
    return Artefacts(Path(os.environ[EFFECTS]) / agent)


def _leave(agent: Agent, number: int, refused: int, context: Context) -> None:
    if number % 4 == refused:
        raise Reject(f"{agent.name} does not take {number}", acted=False)
    left_by(agent.name).keep(context.step_id, context.flow_id, str(number))


@booking.on(Ordered)
def book(ordered: Ordered, context: Context) -> Booked:
    _leave(booking, ordered.number, 4, context)  # of four numbers none: the first is never the one that refuses
    return Booked(number=ordered.number)


@book.undo
def unbook(ordered: Ordered, context: Context) -> None:
    left_by("booking").remove(context.step_id)


@charging.on(Booked)
def charge(booked: Booked, context: Context) -> Charged:
    _leave(charging, booked.number, 1, context)
    return Charged(number=booked.number)


@charge.undo
def refund(booked: Booked, context: Context) -> None:
    left_by("charging").remove(context.step_id)


@shipping.on(Charged)
def ship(charged: Charged, context: Context) -> Shipped:
    _leave(shipping, charged.number, 2, context)
    return Shipped(number=charged.number)


@ship.undo
def fetch_back(charged: Charged, context: Context) -> None:
    left_by("shipping").remove(context.step_id)
