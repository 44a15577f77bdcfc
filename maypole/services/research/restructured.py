"""reStructuredText and plain text into blocks.

Reads what matters for finding and quoting: titles, paragraphs, lists, definitions, literal blocks and the usual
directives. What it does not know it keeps as prose; it never fails on odd input, because people's notes are odd.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from maypole.services.research.sections import Block, Inline, Kind, dedent, indent_of, join_lines, strip_blank

DEPTH_MAX = 12
"""Deeper nesting is kept as prose: recursion must not depend on somebody's file."""

_RULER = re.compile(r"([=\-`:.'\"~^_*+#<>])\1{2,}$")
_ITEM = re.compile(r"(?:[*+•-]|\(?(?:\d{1,3}|#|[a-zA-Z])[.)])\s+(?=\S)")
_DIRECTIVE = re.compile(r"\.\.\s+(?:\|[^|]+\|\s+)?([\w:-]+)::\s*(.*)$")
_SIGNATURE = re.compile(
    r"(?:(?:class|async|exception|coroutine|classmethod|staticmethod)\s+)?[A-Za-z_][\w.]*\([^)]*\)(?:\s*->.*)?(?:\s*¶)?$"
)
_CODE_LINE = re.compile(
    r"(>>>|\.\.\. |::=|^\s*[\w.\[\], ]+ ?[-+*/|]?= ?\S|:\s*$|^\s*[\w.]+\(.*\)|^\s*@\w|^\s*(import|from|return|raise|def|class|print)\b)"
)
_VERBATIM = frozenset(
    {"code", "code-block", "sourcecode", "parsed-literal", "productionlist", "doctest", "testcode", "highlight", "console"}
)
_DROPPED = frozenset(
    {
        "image",
        "figure",
        "toctree",
        "contents",
        "index",
        "raw",
        "math",
        "include",
        "literalinclude",
        "meta",
        "seealso",
        "currentmodule",
        "module",
        "only",
    }
)
_FIELD = re.compile(r":[\w -]+:(\s|$)")
_TABLE = re.compile(r"(\+[-=+]{3,}|=+( +=+)+$)")


def plain(text: str) -> str:
    return text


def restructured_inline(text: str) -> str:
    text = re.sub(r":[\w:.+-]+:`([^`<]*?)\s*(?:<[^`>]*>)?`", _role, text)
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    text = re.sub(r"(?<![`\w])`([^`<>]+?)\s*(?:<[^`>]*>)?`__?", r"\1", text)
    text = re.sub(r"(?<![\w`])([A-Za-z][\w-]*)_(?=[\s.,;:!?)]|$)", r"\1", text)
    text = re.sub(r"\s?\[[#*\d][\w-]*\]_", "", text)
    text = re.sub(r"\|([\w -]+)\|", r"\1", text)
    return re.sub(r"\\(\W)", r"\1", text)


def _role(match: re.Match[str]) -> str:
    shown = match.group(1).lstrip("!~")
    if match.group().startswith((":ref:", ":doc:", ":term:", ":numref:", ":pep:", ":rfc:")):
        return shown
    return f"`{shown.rpartition('.')[2] if match.group(1).startswith('~') else shown}`"


def parse(text: str, inline: Inline = restructured_inline) -> Iterator[Block]:
    lines = [line.rstrip() for line in text.expandtabs(8).splitlines()]
    levels: list[tuple[str, bool]] = []
    path: tuple[str, ...] = ()
    body: list[str] = []
    at = 0
    while at < len(lines):
        title, style, taken = _heading(lines, at)
        if not taken:
            body.append(lines[at])
            at += 1
            continue
        yield from blocks(body, path, inline)
        body = []
        if style not in levels:
            levels.append(style)
        path = (*path[: levels.index(style)], inline(title))
        at += taken
    yield from blocks(body, path, inline)


def _heading(lines: list[str], at: int) -> tuple[str, tuple[str, bool], int]:
    """Title, style and the number of lines taken; none taken where no title starts."""
    line = lines[at]
    following = lines[at + 1] if at + 1 < len(lines) else ""
    if _RULER.match(line) and at + 2 < len(lines) and lines[at + 2] == line and following.strip() and not _RULER.match(following):
        return following.strip(), (line[0], True), 3
    before = lines[at - 1] if at else ""
    if (
        line
        and not line[0].isspace()
        and not before
        and not _RULER.match(line)
        and _RULER.match(following)
        and len(following) >= len(line) * 0.8
    ):
        return line.strip(), (following[0], False), 2
    return "", ("", False), 0


def blocks(lines: list[str], path: tuple[str, ...], inline: Inline, depth: int = 0) -> Iterator[Block]:
    """The blocks of lines without titles."""
    lines = strip_blank(lines)
    if depth > DEPTH_MAX:
        if lines:
            yield Block(path, Kind.PROSE, inline(join_lines(lines)))
        return
    lines = dedent(lines)
    inner = partial(blocks, inline=inline, depth=depth + 1)
    at = 0
    while at < len(lines):
        if not lines[at].strip() or _RULER.match(lines[at].strip()):
            at += 1
            continue
        head_end = _paragraph_end(lines, at)
        head, (body, after) = lines[at:head_end], _indented(lines, head_end)
        first = head[0]
        if directive := _DIRECTIVE.match(first):
            yield from _directive(directive, [*head[1:], *body], path, inner)
        elif first.startswith(".. "):
            pass  # a comment, a footnote, a target
        elif first.startswith("See also:"):
            pass  # pointers into documents that are not in the corpus
        elif first.startswith(">>>") or _TABLE.match(first):
            yield Block(path, Kind.CODE, "\n".join(head))
            yield from inner(body, path) if body else ()
        elif marker := _ITEM.match(first):
            yield from _item(first[marker.end() :], [*head[1:], *body], path, inner)
        elif first[0].isspace():
            yield from _set_apart(head, path, inner)
            yield from inner(body, path) if body else ()
        elif body and _SIGNATURE.match(join_lines(head)):
            yield from inner(body, (*path, join_lines(head).partition("(")[0].removeprefix("class ")))
        elif len(head) == 1 and body and body[0].strip() and len(first) <= 80 and first[-1] not in ".:;,?!":
            yield from inner(body, (*path, inline(first.strip())))
        elif not _FIELD.match(first):
            yield from _prose(head, body, path, inline, inner)
        else:
            yield from inner(body, path) if body else ()
        at = after


def _paragraph_end(lines: list[str], at: int) -> int:
    """A paragraph ends at a blank line, at a deeper line that follows its first, or where the next item starts."""
    margin, end = indent_of(lines[at]), at + 1
    verbatim = lines[at].lstrip().startswith(">>>") or _TABLE.match(lines[at])
    while end < len(lines) and lines[end].strip() and not (_ITEM.match(lines[end]) and _ITEM.match(lines[at])):
        if not verbatim and margin == 0 and indent_of(lines[end]) > margin:
            break
        end += 1
    return end


def _indented(lines: list[str], start: int) -> tuple[list[str], int]:
    """The deeper lines from `start` on, blank ones between them included, and where they end."""
    end = last = start
    while end < len(lines) and (not lines[end].strip() or lines[end][0].isspace()):
        end += 1
        if lines[end - 1].strip():
            last = end
    return lines[start:last], last


def _directive(match: re.Match[str], body: list[str], path: tuple[str, ...], inner: partial[Iterator[Block]]) -> Iterator[Block]:
    name, argument = match.group(1), match.group(2)
    body = dedent(strip_blank(body))
    while body and _FIELD.match(body[0]):
        body = body[1:]
    if name in _VERBATIM:
        if body := strip_blank(body):
            yield Block(path, Kind.CODE, "\n".join(body))
    elif name in _DROPPED:
        return
    elif ":" in name or _SIGNATURE.match(argument):
        yield from inner(body, (*path, argument.partition("(")[0]) if argument else path)
    else:
        yield from inner([argument, *body] if name.startswith(("version", "deprecated")) is False else body, path)


def _item(text: str, rest: list[str], path: tuple[str, ...], inner: partial[Iterator[Block]]) -> Iterator[Block]:
    """The first paragraph of an item is the item; what else it holds follows as what it is."""
    own: list[str] = []
    while rest and rest[0].strip() and not _ITEM.match(rest[0].lstrip()):
        own.append(rest.pop(0))
    for number, block in enumerate(inner([text, *(line.strip() for line in own)], path)):
        yield Block(block.path, Kind.ITEM, block.text) if number == 0 and block.kind is Kind.PROSE else block
    yield from inner(rest, path) if rest else ()


def _prose(head: list[str], body: list[str], path: tuple[str, ...], inline: Inline, inner: partial[Iterator[Block]]) -> Iterator[Block]:
    text = join_lines(head)
    literal = text.endswith("::")
    if shown := inline(text.removesuffix("::").rstrip() + (":" if literal and text != "::" else "")):
        yield Block(path, Kind.PROSE, shown)
    if literal and body:
        yield Block(path, Kind.CODE, "\n".join(dedent(strip_blank(body))))
    elif body:
        yield from _set_apart(body, path, inner)


def _set_apart(body: list[str], path: tuple[str, ...], inner: partial[Iterator[Block]]) -> Iterator[Block]:
    """Indented without a reason given: code when its first lines look like code, else a quotation or a nested text."""
    body = dedent(strip_blank(body))
    filled = [line for line in body if line.strip()]
    if any(_ITEM.match(line) for line in filled[:1]):
        yield from inner(body, path)
    elif "::=" in filled[0] or sum(bool(_CODE_LINE.search(line)) for line in filled[:6]) * 2 >= len(filled[:6]):
        yield Block(path, Kind.CODE, "\n".join(body))
    else:
        yield from inner(body, path)
