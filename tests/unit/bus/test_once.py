"""`context.once`: one side effect inside a step, however it is asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.services.steps import context as a_context


async def test_calls_side_by_side_under_one_name_are_one_call(tmp_path: Path) -> None:
    context, charged = a_context(tmp_path), list[str]()

    async def charge() -> int:
        charged.append("card")
        await asyncio.sleep(0)
        return len(charged)

    assert await asyncio.gather(*(context.once("charge", charge) for _ in range(3))) == [1, 1, 1]
    assert await context.once("refund", charge) == 2, "another name is another call"
    assert charged == ["card"] * 2


async def test_plain_functions_side_by_side_under_one_name_are_one_call(tmp_path: Path) -> None:
    context, charged = a_context(tmp_path), list[str]()
    handlers = (asyncio.to_thread(context.once, "charge", lambda: charged.append("card")) for _ in range(4))
    assert await asyncio.gather(*handlers) == [None] * 4
    assert charged == ["card"]


async def test_whoever_waited_for_a_call_that_failed_makes_it_anew(tmp_path: Path) -> None:
    context, asked = a_context(tmp_path), list[str]()

    async def ask() -> str:
        asked.append("bank")
        await asyncio.sleep(0)
        if len(asked) == 1:
            raise ConnectionError("nobody answers")
        return "yes"

    answers = await asyncio.gather(*(context.once("ask", ask) for _ in range(2)), return_exceptions=True)
    assert isinstance(answers[0], ConnectionError) and answers[1] == "yes" and asked == ["bank"] * 2


async def test_what_a_plain_function_raises_is_raised(tmp_path: Path) -> None:
    def ask() -> None:
        raise ConnectionError("nobody answers")

    with pytest.raises(ConnectionError, match="nobody answers"):
        await a_context(tmp_path).once("ask", ask)
