"""An agent under torture as a process of its own.

    python -m tests.torture.agent BOOTSTRAP STORE HOME ROLE NAME WITNESS [--die-at POINT --after N] [--member ID]

With `--member` it is a static member in the classic group protocol, so that whoever
follows a killed one gets its partitions at once; without, a member as usual, whose successor waits for a session.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
from pathlib import Path
from typing import Any

from maypole.bus import Agent, Context, Event, Reject
from maypole.bus.composition import open_platform
from maypole.bus.hook import Untraced
from maypole.bus.kafka.confluent import ConfluentTransport
from maypole.bus.ledger.port import LedgerUnavailable
from maypole.bus.ports import BrokerUnreachable
from maypole.bus.runner import stopping_on
from maypole.services.cli.log_lines import log_to_stderr
from maypole.settings import Settings
from tests.torture.failpoints import EFFECTED, FailingTransport, Failpoint, end_with_the_crew
from tests.torture.witness import call

SESSION_SECONDS = 6
"""After which a group gives up on a member that is silent, in both protocols."""
TURNED_AWAY = 5
"""The exit code of an agent that found no broker, or no database, before it was announced; whoever runs it starts it again."""
_WORK_SECONDS_MAX = 0.02
"""Handlers take their time, each another one: only so can what comes later overtake."""


class Started(Event, type="torture.started"):
    up_to: int
    poisoned: int | None = None
    """The number of the tick that is refused."""


class Ticked(Event, type="torture.ticked"):
    number: int
    poisoned: bool


class Tocked(Event, type="torture.tocked"):
    number: int


class Acted(Event, type="torture.acted"):
    number: int
    answer: int
    """Another one each time it is asked, as of a language model."""


def spreading(name: str, failpoint: Failpoint) -> Agent:
    """One event becomes several of one flow."""
    agent = Agent(name)

    @agent.on(Started, pure=True)
    async def spread(started: Started) -> list[Ticked]:
        failpoint.passing("handling")
        return [Ticked(number=number, poisoned=number == started.poisoned) for number in range(started.up_to)]

    return agent


def tocking(name: str, failpoint: Failpoint) -> Agent:
    """Pure: repeating it gives the same events. Refuses what is poisoned."""
    agent = Agent(name)

    @agent.on(Ticked, pure=True)
    async def tock(ticked: Ticked) -> Tocked:
        await failpoint.stalling("handling")
        await _work()
        if ticked.poisoned:
            raise Reject("poisoned")
        return Tocked(number=ticked.number)

    return agent


def acting(name: str, failpoint: Failpoint, witness: Path) -> Agent:
    """Acts on the outside, and its answer is never the same twice."""
    agent = Agent(name)

    @agent.on(Ticked, timeout_seconds=20)
    async def act(ticked: Ticked, context: Context) -> Acted:
        await failpoint.stalling("handling")
        await _work()
        await call(witness, context.agent, context.event_id, context.idempotency_key)
        await failpoint.stalling(EFFECTED)
        return Acted(number=ticked.number, answer=random.getrandbits(31))

    @act.undo
    async def take_back(ticked: Ticked) -> None: ...

    return agent


async def _work() -> None:
    await asyncio.sleep(random.uniform(0, _WORK_SECONDS_MAX))


def agent_of(role: str, name: str, failpoint: Failpoint, witness: Path) -> Agent:
    match role:
        case "spreading":
            return spreading(name, failpoint)
        case "tocking":
            return tocking(name, failpoint)
        case "acting":
            return acting(name, failpoint, witness)
    raise ValueError(f"expected the role spreading, tocking or acting, found {role!r}")


def _properties(member: str | None) -> dict[str, str]:
    if member is None:
        return {}
    return {"group.protocol": "classic", "group.instance.id": member, "session.timeout.ms": str(SESSION_SECONDS * 1000)}


async def _run(options: argparse.Namespace) -> None:
    failpoint = Failpoint.chosen(options)
    agent = agent_of(options.role, options.name, failpoint, options.witness)
    async with ConfluentTransport(options.bootstrap, config=_properties(options.member)) as real:
        transport: Any = FailingTransport(real, failpoint)
        async with open_platform(Settings(home=options.home, kafka=options.bootstrap, store=options.store), transport) as platform:
            runner = platform.runner(agent, Untraced())
            with stopping_on([runner], signal.SIGTERM):
                try:
                    await runner.run()
                except (BrokerUnreachable, LedgerUnavailable) as error:
                    if runner.ready.is_set():
                        raise RuntimeError("a running agent waits for its broker and its ledger") from error
                    raise


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bootstrap")
    parser.add_argument("store")
    parser.add_argument("home", type=Path)
    parser.add_argument("role")
    parser.add_argument("name")
    parser.add_argument("witness", type=Path)
    parser.add_argument("--member")
    Failpoint.add_options(parser)
    end_with_the_crew()
    log_to_stderr(0)
    try:
        asyncio.run(_run(parser.parse_args()))
    except (BrokerUnreachable, LedgerUnavailable) as error:
        print(error, file=sys.stderr)
        sys.exit(TURNED_AWAY)


if __name__ == "__main__":
    main()
