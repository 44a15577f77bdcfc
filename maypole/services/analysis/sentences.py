"""A passage, which is Markdown, taken apart into statements that can be quoted one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

SHOWN_WITH_MAX = 900
"""A list or an example longer than this, in characters, is not quoted with the sentence that announces it."""

_FENCE = re.compile(r"(`{3,})")
_BOUNDARY = re.compile(r"(?<=[.!?])([\"”’')\]*`]*)\s+(?=[\"“‘'(\[*`]*[A-Z0-9_`“\"])")  # noqa: RUF001
_NO_END = re.compile(r"(?:\b(?:e\.g|i\.e|etc|cf|vs|resp|approx|incl|Dr|Mr|Mrs|Ms|St|No|Fig|Sec|al|ca)|\b[A-Z])\.$")


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence, or a sentence with the list or example that it announces. `at` counts from 0 within its passage.

    `incomplete` ones cannot be quoted alone: what they announce could not be kept, or they go on after an example.
    """

    text: str
    shown: str
    at: int
    incomplete: bool


def statements(passage: str) -> tuple[Statement, ...]:
    found: list[Statement] = []
    before = ""
    for block in _blocks(passage):
        last = found[-1] if found else None
        if not block.startswith(("```", "- ")):
            goes_on = before.startswith("```") and block[0].islower()
            for number, part in enumerate(split(block)):
                found.append(Statement(part, "", len(found), _announces(part) or (goes_on and number == 0)))
        elif last and _announces(last.text) and not last.shown and "::=" in block:
            # A grammar is for the reference, not for an answer; the sentence above it stands without.
            found[-1] = replace(last, text=last.text.removesuffix(":") + ".", incomplete=False)
        elif last and _announces(last.text) and not last.shown and len(block) <= SHOWN_WITH_MAX:
            found[-1] = replace(last, shown=block, incomplete=last.text.endswith(","))
        elif block.startswith("- "):
            for item in block.split("\n"):
                found += [Statement(part, "", len(found), _announces(part)) for part in split(item.removeprefix("- "))]
        before = block
    return tuple(found)


def _announces(sentence: str) -> bool:
    return not sentence.rstrip("*_`\"')”").endswith((".", "!", "?"))


def _blocks(passage: str) -> Iterator[str]:
    """Paragraphs, runs of list items, and fenced code, in order."""
    fence = ""
    held: list[str] = []
    for line in passage.split("\n"):
        opening = _FENCE.match(line)
        if fence:
            held.append(line)
            if line == fence:
                yield "\n".join(held)
                fence, held = "", []
            continue
        if opening or not line or (held and line.startswith("- ") != held[0].startswith("- ")):
            if held:
                yield "\n".join(held)
            held = []
        if opening:
            fence = opening.group(1)
        if line:
            held.append(line)
    if held:
        yield "\n".join(held)


def split(paragraph: str) -> list[str]:
    """Sentences of one paragraph. Never inside code, brackets or after an abbreviation."""
    sentences: list[str] = []
    held = ""
    start = 0
    for boundary in _BOUNDARY.finditer(paragraph):
        held = f"{held} {paragraph[start : boundary.end(1)]}" if held else paragraph[start : boundary.end(1)]
        start = boundary.end()
        if _complete(held):
            sentences.append(held)
            held = ""
    rest = f"{held} {paragraph[start:]}" if held else paragraph[start:]
    return [sentence.strip() for sentence in [*sentences, rest] if sentence.strip()]


def _complete(text: str) -> bool:
    prose = re.sub(r"`[^`]*`", "", text)
    return text.count("`") % 2 == 0 and prose.count("(") <= prose.count(")") and not _NO_END.search(text)
