"""An agent that answers what it is asked, and the records that foreign clients would write for it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from maypole.bus import Agent, Event, at_least
from maypole.bus.ports import Record
from maypole.schemas.avro import schema_of
from maypole.schemas.codec import Writer
from tests.support.names import unique_agent


class Asked(Event, type="delivery.asked"):
    text: str
    confidence: Annotated[float, Field(ge=0, le=1)] = 1.0


class Answered(Event, type="delivery.answered"):
    text: str


class Told(Event, type="delivery.told"):
    text: str


def answering(name: str | None = None, *, pure: bool = False) -> Agent:
    agent = Agent(name or unique_agent("answering"))

    @agent.on(Asked, require=at_least("confidence", 0.7), pure=pure)
    async def answer(asked: Asked) -> Answered:
        return Answered(text=asked.text.upper())

    return agent


def encoded(event: Event) -> bytes:
    return Writer(type(event), schema_of(type(event)).derived_id).encode(event)


def foreign(event: Event, flow: str, event_id: str = "foreign-1", *more: tuple[str, bytes], value: bytes | None = None) -> Record:
    """A root as any Kafka client may write it."""
    event_type = type(event).event_type
    headers = [("ce_id", event_id.encode()), ("ce_type", event_type.encode()), ("ce_correlationid", flow.encode()), *more]
    return Record(event_type, flow.encode(), encoded(event) if value is None else value, headers)
