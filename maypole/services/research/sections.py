"""What every markup is read into: blocks of prose, list items and code under a path of titles.

The text of a block is Markdown, whatever it was written in, so that a passage can be shown as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    PROSE = "prose"
    ITEM = "item"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Block:
    """`path` is the titles above it, outermost first. Only code keeps its line breaks."""

    path: tuple[str, ...]
    kind: Kind
    text: str


Inline = Callable[[str], str]
"""Turns the inline markup of one paragraph, already on one line, into Markdown."""

Parse = Callable[[str], Iterator[Block]]


def join_lines(lines: list[str]) -> str:
    """One line of a paragraph; a compound broken after its hyphen is put together again."""
    joined = ""
    for line in (" ".join(line.split()) for line in lines):
        if joined.endswith("-") and joined[-2:-1].isalpha() and line[:1].islower():
            joined += line
        else:
            joined += " " + line if joined else line
    return joined


def strip_blank(lines: list[str]) -> list[str]:
    start, end = 0, len(lines)
    while start < end and not lines[start].strip():
        start += 1
    while end > start and not lines[end - 1].strip():
        end -= 1
    return lines[start:end]


def indent_of(line: str) -> int:
    return len(line) - len(line.lstrip())


def dedent(lines: list[str]) -> list[str]:
    margin = min((indent_of(line) for line in lines if line.strip()), default=0)
    return [line[margin:] for line in lines]
