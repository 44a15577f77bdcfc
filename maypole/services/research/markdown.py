"""Markdown into blocks: titles, paragraphs, lists, fences, quotations and tables, with front matter left out."""

from __future__ import annotations

import re
from collections.abc import Iterator

from maypole.services.research.sections import Block, Kind, dedent, join_lines, strip_blank

_HEADING = re.compile(r" {0,3}(#{1,6})\s+(.*?)\s*#*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)\s*$")
_FENCE = re.compile(r" *(`{3,}|~{3,})\s*[^`]*$")
_ITEM = re.compile(r"\s*(?:[*+-]|\d{1,9}[.)])\s+(?:\[[ xX]\]\s+)?(?=\S)")
_RULE = re.compile(r" {0,3}([-*_])(?:\s*\1){2,}\s*$")
_QUOTE = re.compile(r"^\s*>\s?")
_FRONT_MATTER = re.compile(r"\A(---|\+\+\+)\n.*?\n\1\s*(\n|\Z)", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LINK_TARGET = re.compile(r"^ {0,3}\[[^\]]+\]:\s+\S+.*$", re.MULTILINE)
_CODE_SPAN = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)")


def parse(text: str) -> Iterator[Block]:
    text = _COMMENT.sub("", _FRONT_MATTER.sub("", text.replace("\r\n", "\n")))
    lines = [line.rstrip() for line in _LINK_TARGET.sub("", text).expandtabs(4).splitlines()]
    path: list[tuple[int, str]] = []
    paragraph: list[str] = []
    at = 0

    def titles() -> tuple[str, ...]:
        return tuple(title for _, title in path)

    def flush() -> Iterator[Block]:
        yield from _paragraph(paragraph, titles())
        paragraph.clear()

    while at < len(lines):
        line = lines[at]
        if fence := _FENCE.match(line):
            yield from flush()
            code, at = _fenced(lines, at + 1, fence.group(1))
            if code:
                yield Block(titles(), Kind.CODE, code)
            continue
        at += 1
        if heading := _HEADING.match(line):
            yield from flush()
            path = _below(path, len(heading.group(1)), inline(heading.group(2)))
        elif paragraph and (under := _UNDERLINE.match(line)) and not _ITEM.match(paragraph[0]):
            title = inline(join_lines(paragraph))
            paragraph.clear()
            path = _below(path, 1 if under.group(1)[0] == "=" else 2, title)
        elif not line.strip() or _RULE.match(line):
            yield from flush()
        elif not paragraph and line.startswith("    ") and not _ITEM.match(line):
            code, at = _indented(lines, at - 1)
            yield Block(titles(), Kind.CODE, code)
        else:
            if _ITEM.match(line) or (paragraph and line.lstrip().startswith("|") != paragraph[0].lstrip().startswith("|")):
                yield from flush()
            paragraph.append(line)
    yield from flush()


def _below(path: list[tuple[int, str]], level: int, title: str) -> list[tuple[int, str]]:
    kept = [(above, name) for above, name in path if above < level]
    return [*kept, (level, title)] if title else kept


def _fenced(lines: list[str], start: int, fence: str) -> tuple[str, int]:
    end = start
    while end < len(lines) and not (lines[end].strip().startswith(fence) and not lines[end].strip().strip(fence[0])):
        end += 1
    return "\n".join(dedent(strip_blank(lines[start:end]))), end + 1


def _indented(lines: list[str], start: int) -> tuple[str, int]:
    end = start
    while end < len(lines) and (not lines[end].strip() or lines[end].startswith("    ")):
        end += 1
    return "\n".join(dedent(strip_blank(lines[start:end]))), end


def _paragraph(lines: list[str], path: tuple[str, ...]) -> Iterator[Block]:
    if not lines:
        return
    if lines[0].lstrip().startswith("|"):
        yield Block(path, Kind.CODE, "\n".join(line.strip() for line in lines))
        return
    item = _ITEM.match(lines[0])
    first = lines[0][item.end() :] if item else lines[0]
    text = inline(join_lines([_QUOTE.sub("", line) for line in [first, *lines[1:]]]))
    if text:
        yield Block(path, Kind.ITEM if item else Kind.PROSE, text)


def inline(text: str) -> str:
    """Links and images become their text, tags go; code spans stay as they are."""
    pieces = _CODE_SPAN.split(text)
    shown = [_words(pieces[0])]
    for at in range(1, len(pieces), 3):
        shown += [f"{pieces[at]}{pieces[at + 1]}{pieces[at]}", _words(pieces[at + 2])]
    return " ".join("".join(shown).split())


def _words(text: str) -> str:
    text = re.sub(r"!\[([^\]]*)\]\([^)]*\)", "", text)
    text = re.sub(r"\[([^\]]+)\](?:\([^)]*\)|\[[^\]]*\])", r"\1", text)
    text = re.sub(r"\[\^[^\]]+\]", "", text)
    text = re.sub(r"</?[A-Za-z][^<>]*>", "", text)
    text = re.sub(r"<(https?://[^>]+)>", r"\1", text)
    return re.sub(r"\\([\\`*_{}\[\]()#+.!>~|-])", r"\1", text)
