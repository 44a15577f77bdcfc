from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maypole.services.research import markdown, pydoc, restructured
from maypole.services.research.sections import Block, Kind, Parse


def test_markdown_is_read_with_its_titles_lists_and_fences() -> None:
    text = """\
---
title: not text
---
# Guide

A [link](http://x) and ![image](y.png)<br/> `code <b>`.
Second line.

Under-
lined
-----

* one
  more
* two

```python
# not a title
```

> quoted
"""
    assert list(markdown.parse(text)) == [
        Block(("Guide",), Kind.PROSE, "A link and `code <b>`. Second line."),
        Block(("Guide", "Under-lined"), Kind.ITEM, "one more"),
        Block(("Guide", "Under-lined"), Kind.ITEM, "two"),
        Block(("Guide", "Under-lined"), Kind.CODE, "# not a title"),
        Block(("Guide", "Under-lined"), Kind.PROSE, "quoted"),
    ]


def test_restructured_text_is_read_with_its_titles_directives_and_roles() -> None:
    text = """\
=====
Guide
=====

See :class:`~queue.Queue` and ``x`` by `name <http://x>`_ [1]_::

    literal = 1

.. note:: Mind the *gap*.

.. image:: picture.png

.. a comment

Part
----

- one
  more
- two

term
    its meaning

.. function:: spam(eggs)

   Cook them.
"""
    assert list(restructured.parse(text)) == [
        Block(("Guide",), Kind.PROSE, "See `Queue` and `x` by name:"),
        Block(("Guide",), Kind.CODE, "literal = 1"),
        Block(("Guide",), Kind.PROSE, "Mind the *gap*."),
        Block(("Guide", "Part"), Kind.ITEM, "one more"),
        Block(("Guide", "Part"), Kind.ITEM, "two"),
        Block(("Guide", "Part", "term"), Kind.PROSE, "its meaning"),
        Block(("Guide", "Part", "spam"), Kind.PROSE, "Cook them."),
    ]


def test_the_language_reference_is_read_without_its_text_markup() -> None:
    text = """\
The "with" statement
********************

Uses "open()"s and *__slots__* [1] of a *comma-
separated* list:

   with_stmt ::= "with" item

object.__enter__(self)

   Enter the context.

-[ Footnotes ]-

[1] Left out.
"""
    assert list(pydoc.parse(text)) == [
        Block(("The `with` statement",), Kind.PROSE, "Uses `open()`s and `__slots__` of a *comma-separated* list:"),
        Block(("The `with` statement",), Kind.CODE, 'with_stmt ::= "with" item'),
        Block(("The `with` statement", "object.__enter__"), Kind.PROSE, "Enter the context."),
    ]


_LINES = st.lists(
    st.sampled_from(
        ["", "word", "* item", "   indented", "----", "```", ".. note::", "text::", "| a | b |", "> q", "# t", ">>> x", "a\n  b", "[1] x"]
    )
)


@pytest.mark.parametrize("parse", [markdown.parse, restructured.parse, pydoc.parse])
@given(lines=_LINES, odd=st.text(max_size=60))
def test_any_text_is_read_without_an_error(parse: Parse, lines: list[str], odd: str) -> None:
    for block in parse("\n".join([*lines, odd])):
        assert block.text.strip()


def test_deep_nesting_is_kept_as_prose() -> None:
    text = "\n".join(" " * (2 * depth) + f"* level{depth}" for depth in range(400))
    assert "level399" in " ".join(block.text for block in restructured.parse(text))
