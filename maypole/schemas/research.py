"""Events of the research domain: a question, what was found about it, and an answer drafted from what was found."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from maypole.schemas.event import Event, Value

Question = Annotated[str, Field(min_length=1, max_length=2000)]
Confidence = Annotated[float, Field(ge=0, le=1)]
Address = Annotated[str, Field(min_length=1, max_length=4000)]


class Finding(Value):
    """A passage of the corpus that bears on the question. `source` names its document, `section` its place there."""

    passage: Annotated[str, Field(min_length=1, max_length=20_000)]
    source: Annotated[str, Field(min_length=1, max_length=1000)]
    section: Annotated[str, Field(max_length=1000)]
    score: Annotated[float, Field(ge=0, description="How well the passage fits the question; the higher the better.")]


class Sentence(Value):
    """A sentence of an answer, and where it can be checked."""

    text: Annotated[str, Field(min_length=1, max_length=5000)]
    sources: Annotated[tuple[str, ...], Field(min_length=1)]


class ResearchRequested(Event, type="research.requested"):
    """Somebody asked a question. `deliver_to` is a folder or an http(s) address for the report."""

    question: Question
    deliver_to: Address | None = None


class ResearchCompleted(Event, type="research.completed"):
    """Passages were found, best section first. `confidence` tells how far they can be expected to answer the question."""

    question: Question
    findings: Annotated[tuple[Finding, ...], Field(min_length=1)]
    confidence: Confidence
    sources: Annotated[tuple[str, ...], Field(min_length=1)]
    researched_at: datetime
    deliver_to: Address | None = None


class ResearchInconclusive(Event, type="research.inconclusive"):
    """Nothing usable was found: an honest end."""

    question: Question
    reason: Annotated[str, Field(min_length=1)]
    best_confidence: Confidence
    researched_at: datetime


class AnalysisReady(Event, type="analysis.ready"):
    """An answer was drafted, every sentence with its sources."""

    question: Question
    sentences: Annotated[tuple[Sentence, ...], Field(min_length=1)]
    sources: Annotated[tuple[str, ...], Field(min_length=1)]
    confidence: Confidence
    deliver_to: Address | None = None
