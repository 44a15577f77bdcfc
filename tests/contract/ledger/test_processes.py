"""That a process has ended is certain, or it is not said."""

from __future__ import annotations

import os
import signal

import pytest

from maypole.bus.stores.processes import Process, has_ended, process_of, process_with, this_process
from tests.contract.ledger.stores import another_process


async def test_a_process_that_runs_or_stands_still_has_not_ended_and_one_that_was_killed_has() -> None:
    async with another_process() as process:
        assert process_of(str(process)) == process
        assert not has_ended(process)
        os.kill(process.pid, signal.SIGSTOP)
        assert not has_ended(process)
    assert has_ended(process)


async def test_a_number_that_was_given_to_another_process_is_not_the_one_that_had_it() -> None:
    mine = this_process()
    assert mine is not None and not has_ended(mine)
    assert has_ended(mine._replace(started=mine.started - 1))


async def test_what_ran_on_another_machine_or_in_another_container_is_not_known_to_have_ended() -> None:
    async with another_process() as process:
        pass
    assert has_ended(process)
    assert not has_ended(process._replace(kernel=f"another.{process.kernel.partition('.')[2]}"))
    assert not has_ended(process._replace(kernel=f"{process.kernel}1"))


@pytest.mark.parametrize("text", ["", "an-instance-12-abcdef", "kernel/12", "kernel/x/y", "/1/2"])
def test_what_names_no_process_is_none(text: str) -> None:
    assert process_of(text) is None


def test_nobody_who_does_not_exist_is_a_process() -> None:
    assert process_with(2**22 + 1) is None
    assert Process("kernel", 1, 2) != this_process()
