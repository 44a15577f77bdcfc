"""Blocks packed into passages: the unit that is searched, scored, quoted and cited."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from maypole.services.research.sections import Block, Kind
from maypole.services.wording import SECTION_SEPARATOR

CHARACTERS_WANTED = 900
"""A passage is closed before it would grow beyond this. Long enough to answer, short enough to be about one thing."""

CHARACTERS_MAX = 2400
"""No passage is longer, whatever the file looks like."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_TITLE_MAX = 160


@dataclass(frozen=True, slots=True)
class Passage:
    """`source` says where it lies (`python:try`, `notes/kafka.md`); `title` is its path of titles; `text` is Markdown."""

    source: str
    title: str
    text: str


def pack(source: str, blocks: Iterable[Block], fallback_title: str) -> Iterator[Passage]:
    """Passages never cross a title. Code and list items stay with the paragraph that introduces them while there is room."""
    held: list[Block] = []
    length = 0
    for block in _bounded(blocks):
        wanted = CHARACTERS_WANTED if block.kind is Kind.PROSE else CHARACTERS_MAX - 200
        if held and (block.path != held[0].path or length + len(block.text) > wanted):
            yield _passage(source, held, fallback_title)
            held, length = [], 0
        held.append(block)
        length += len(block.text)
    if held:
        yield _passage(source, held, fallback_title)


def _bounded(blocks: Iterable[Block]) -> Iterator[Block]:
    room = CHARACTERS_MAX - 100
    for block in blocks:
        if len(block.text) <= room:
            yield block
            continue
        separator, parts = ("\n", block.text.split("\n")) if block.kind is Kind.CODE else (" ", _SENTENCE_END.split(block.text))
        piece = ""
        for part in (whole[at : at + room] for whole in parts for at in range(0, max(len(whole), 1), room)):
            if piece and len(piece) + len(part) + 1 > room:
                yield Block(block.path, block.kind, piece)
                piece = part
            else:
                piece = f"{piece}{separator}{part}" if piece else part
        if piece.strip():
            yield Block(block.path, block.kind, piece)


def _passage(source: str, blocks: list[Block], fallback_title: str) -> Passage:
    title = SECTION_SEPARATOR.join(_plain_title(part) for part in blocks[0].path) or fallback_title
    return Passage(source, title if len(title) <= _TITLE_MAX else title[: _TITLE_MAX - 1] + "…", "".join(_written(blocks)).strip())


def _plain_title(title: str) -> str:
    return re.sub(r"[`*]+", "", title).strip()


def _written(blocks: list[Block]) -> Iterator[str]:
    for block in blocks:
        if block.kind is Kind.CODE:
            fence = "`" * max(3, max((len(run) + 1 for run in re.findall(r"`+", block.text)), default=0))
            yield f"\n{fence}\n{block.text}\n{fence}\n"
        elif block.kind is Kind.ITEM:
            yield f"- {block.text}\n"
        else:
            yield f"\n{block.text}\n"
