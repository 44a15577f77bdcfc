"""The rows of `bench.json` and the table that people read."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement. `value` is the median of the rounds, `low` and `high` their range.

    `ratio` compares with the subject `of`, round by round, and is the median of that; None where nothing is compared.
    """

    case: str
    subject: str
    metric: str
    value: float
    unit: str
    ratio: float | None = None
    of: str | None = None
    low: float | None = None
    high: float | None = None


def row(
    case: str, subject: str, metric: str, unit: str, rounds: Sequence[float], of: str | None = None, others: Sequence[float] = ()
) -> Row:
    """`others` are the rounds of the subject `of`, in the same order."""
    ratio = statistics.median(one / other for one, other in zip(rounds, others, strict=False)) if others else None
    return Row(
        case, subject, metric, statistics.median(rounds), unit, ratio, of if ratio is not None else None, min(rounds), max(rounds)
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Floor:
    """What must hold: `at_least` or `at_most`, of a ratio or of a value."""

    text: str
    found: float | None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool:
        """A floor whose subject was not measured is not met."""
        return (
            self.found is not None
            and (self.at_least is None or self.found >= self.at_least)
            and (self.at_most is None or self.found <= self.at_most)
        )

    def __str__(self) -> str:
        wanted = f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"
        found = "not measured" if self.found is None else number(self.found)
        return f"{'met    ' if self.met else 'NOT MET'}  {self.text}: expected {wanted}, found {found}"


def verdict(floors: Sequence[Floor]) -> str:
    """The last word of a run: nobody should have to look for a floor that was not met."""
    broken = [floor for floor in floors if not floor.met]
    if not broken:
        return f"floors: all {len(floors)} met"
    return "\n".join((f"floors: {len(broken)} of {len(floors)} NOT MET", *(f"  {floor}" for floor in broken)))


def write_json(rows: Iterable[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(each) for each in rows], indent=1) + "\n")


_TITLES: Final = ("case", "subject", "metric", "median", "range", "unit", "ratio", "of")


def table(rows: Iterable[Row]) -> str:
    lines = [_TITLES, *(_cells(each) for each in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_TITLES))]
    right = {3, 4, 6}
    texts = [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    texts.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(text.rstrip() for text in texts)


def _cells(each: Row) -> tuple[str, ...]:
    spread = "" if each.low is None or each.high is None or each.low == each.high else f"{number(each.low)}..{number(each.high)}"
    ratio = "" if each.ratio is None else f"{each.ratio:.2f}"
    return (each.case, each.subject, each.metric, number(each.value), spread, each.unit, ratio, each.of or "")


def number(value: float) -> str:
    """Three significant digits, with thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
