"""A draft as a Markdown report: the answer with numbered citations, then where each sentence comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from maypole.schemas.research import Sentence

_TITLE_MAX = 120


@dataclass(frozen=True, slots=True)
class Report:
    question: str
    answer: Sequence[Sentence]
    confidence: float
    written_at: datetime
    flow_id: str


def write(report: Report) -> str:
    """The whole document. Sources are numbered in the order in which the answer first cites them."""
    numbers: dict[str, int] = {}
    for sentence in report.answer:
        for source in sentence.sources:
            numbers.setdefault(source, len(numbers) + 1)
    parts = [
        f"# {escaped(title_of(report.question))}",
        *_paragraphs(report.answer, numbers),
        "## Sources",
        _sources(numbers),
        "---",
        _colophon(report),
    ]
    return "\n\n".join(parts) + "\n"


def title_of(question: str) -> str:
    """The question on one line, shortened at a word."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in question).split())
    if len(line) > _TITLE_MAX:
        line = line[:_TITLE_MAX].rpartition(" ")[0].rstrip(" ,;:-") + " …" if " " in line[:_TITLE_MAX] else line[: _TITLE_MAX - 1] + "…"
    return line or "Report"


def escaped(text: str) -> str:
    """Text that shows as it is: code spans stay, names with underscores become some, other markup characters are escaped."""
    text = re.sub(r"(`[^`]*`)|((?:\w+\.)*\w*_\w*(?:\.\w+)*)", lambda match: match.group(1) or f"`{match.group(2)}`", text)
    pieces = re.split(r"(`[^`]+`)", text)
    return "".join(piece if at % 2 else re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", piece) for at, piece in enumerate(pieces))


def _paragraphs(answer: Sequence[Sentence], numbers: Mapping[str, int]) -> list[str]:
    """One paragraph for each run of sentences from the same sources; what a sentence shows ends its paragraph."""
    paragraphs: list[str] = []
    running: list[str] = []
    before: tuple[str, ...] = ()
    for sentence in answer:
        if running and sentence.sources != before:
            paragraphs.append(" ".join(running))
            running = []
        before = sentence.sources
        said, _, shown = sentence.text.partition("\n\n")
        marks = "".join(f"[{numbers[source]}]" for source in sentence.sources)
        running.append(f"{said if running else _safe_start(said)} {marks}")
        if shown:
            paragraphs += [" ".join(running), shown]
            running = []
    return [*paragraphs, " ".join(running)] if running else paragraphs


def _safe_start(sentence: str) -> str:
    """A sentence that begins like a heading, a list or a quotation must not become one."""
    return re.sub(r"^(?:(\d+)(?=[.)] )|(?=#{1,6} |[-+*>] ))", r"\1\\", sentence)


def _sources(numbers: Mapping[str, int]) -> str:
    return "\n".join(f"{number}. {escaped(source)}" for source, number in numbers.items())


def _colophon(report: Report) -> str:
    question = " ".join(report.question.split())
    lines = [
        *([f"Question: {escaped(question)}"] if question != title_of(report.question) else []),
        f"Confidence: {report.confidence:.2f} (the share of the question that the sources are about)",
        f"Written: {report.written_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
        f"Flow: {escaped(report.flow_id)}",
    ]
    return "\n".join(f"- {line}" for line in lines)
