"""Events of the report domain: a report was written, and it reached the place it was asked for."""

from typing import Annotated

from pydantic import Field

from maypole.schemas.event import Event
from maypole.schemas.research import Address, Confidence, Question


class ReportPublished(Event, type="report.published"):
    """A report in Markdown with its citations. `deliver_to` is a folder or an http(s) address; None leaves it to the delivery."""

    question: Question
    title: Annotated[str, Field(min_length=1, max_length=2000)]
    markdown: Annotated[str, Field(min_length=1)]
    sources: Annotated[tuple[str, ...], Field(min_length=1)]
    confidence: Confidence
    deliver_to: Address | None = None


class ReportDelivered(Event, type="report.delivered"):
    """The report lies where it was asked for. `where` is a path or an address, `bytes` the size that was written there."""

    title: Annotated[str, Field(min_length=1, max_length=2000)]
    where: Address
    bytes: Annotated[int, Field(ge=0)]
