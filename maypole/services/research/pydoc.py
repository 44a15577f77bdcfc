"""The Python language reference that ships inside the interpreter: `pydoc_data.topics`, the text behind `help("assert")`.

Sphinx wrote it as text, so it reads like reStructuredText whose literals stand in double quotes and whose
literal blocks have lost their two colons.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial

from maypole.services.research import restructured
from maypole.services.research.sections import Block

_LITERAL = re.compile(r"(?<![\w\"`])\"(\"[^\"]*\"|'\"'|[^\"]+?)\"(?=s\b|[^\w\"]|$)")
_FOOTNOTE_MARK = re.compile(r"\s*\[\d+\]")
_STRONG_LITERAL = re.compile(r"\*\*(PEP \d+)\*\*")
_DUNDER = re.compile(r"(`[^`]*`)|\*?((?:\w+\.)?__\w+__(?:\(\))?)\*?")
_FOOTNOTES = re.compile(r"^-\[ Footnotes \]-$.*", re.MULTILINE | re.DOTALL)
_FOOTNOTE = re.compile(r"^\[\d+\] .*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
_SOURCE_CODE = re.compile(r"^\*\*Source code:\*\* .*$", re.MULTILINE)


def topics() -> Mapping[str, str]:
    from pydoc_data.topics import topics  # half a megabyte of text: only who reads this corpus pays for it

    return topics


def inline(text: str) -> str:
    text = _LITERAL.sub(r"`\1`", text)
    text = _STRONG_LITERAL.sub(r"\1", text)
    # Two underscores on both sides are bold type in Markdown.
    text = _DUNDER.sub(lambda match: match.group(1) or f"`{match.group(2)}`", text)
    return _FOOTNOTE_MARK.sub("", text)


def parse(text: str) -> Iterator[Block]:
    text = _FOOTNOTE.sub("", _FOOTNOTES.sub("", text))
    return restructured.parse(_SOURCE_CODE.sub("", text), partial(inline))
