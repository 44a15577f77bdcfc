"""One instance of a program, as an operator keeps it: whenever its process ends, by itself or not, another one is started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Final, Protocol

from maypole.bus.memory.transport import MemoryTransport
from maypole.bus.ports import BrokerUnreachable, Expired, PublishRefused
from maypole.bus.testing.simulation.chance import log_uniform
from maypole.bus.testing.simulation.loop import Condition, Process
from maypole.bus.testing.simulation.stage import SESSION_SECONDS, Stage

STEPS_TO_LIVE_MAX: Final = 4_000
"""A start takes some hundred steps, and a delivery some tens."""
_PAUSE_SECONDS: Final = (0.5, 120.0)
_ABSENCE_SECONDS: Final = (0.05, 40.0)
_SESSION_LOST_SECONDS: Final = 11.0
"""When a database server gives up on a session whose process is silent."""
_EXPECTED: Final = (PublishRefused, BrokerUnreachable)
"""What a process may end with by itself: the broker refused a record, or was away when it started."""


class Life(Protocol):
    """What one process does, from its start to its end."""

    @property
    def ready(self) -> bool:
        """Whether it takes part from here on."""
        ...

    async def run(self) -> None: ...

    def stop(self) -> None:
        """Begin to stop, as for a deployment."""
        ...

    def presumed_dead(self, dead: bool) -> None:
        """Nobody hears of it, so those who share something with it may take it for dead; or it is heard of again."""
        ...


Begin = Callable[[str, MemoryTransport], Life]
"""(the process's name, its connection) to what it does."""


class Instance:
    """`start` again and again; `failures` are ends that nothing explains."""

    def __init__(self, stage: Stage, program: str, number: int, begin: Begin) -> None:
        """`program`: the agent's name, or another's."""
        self.program = program
        self.name = f"{program}-{number}"
        self.failures: list[BaseException] = []
        self.expired: list[Expired] = []
        """What retention took from it, as it was told."""
        self.lives = 0
        self.lived: list[tuple[Process, MemoryTransport]] = []
        self._stage = stage
        self._begin = begin
        self._life: Life | None = None
        self._over = False

    def start(self) -> None:
        self.lives += 1
        stage = self._stage
        process = Process(stage.loop, f"{self.name}.{self.lives}")
        transport = MemoryTransport(stage.broker, on_expired=self.expired.append)
        self.lived.append((process, transport))
        stage.story.tell(f"{process.name} starts")
        self._life = life = self._begin(process.name, transport)
        main = process.spawn(_lived(life, transport), stage.context)
        main.add_done_callback(partial(self._ended, process), context=Context())
        self.tempt()

    def tempt(self) -> None:
        """Decide what will become of the process that runs."""
        chance, process = self._stage.chance, self.process
        if (hard := chance.strikes("crash")) is not None:
            process.interrupt_after(int(log_uniform(hard, 20, STEPS_TO_LIVE_MAX)), self.crash)
        elif (hard := chance.strikes("pause")) is not None:
            steps = int(log_uniform(self._draw("pausing"), 20, STEPS_TO_LIVE_MAX))
            process.interrupt_after(steps, partial(self._pause, log_uniform(hard, *_PAUSE_SECONDS)))

    @property
    def process(self) -> Process:
        return self.lived[-1][0]

    @property
    def transport(self) -> MemoryTransport:
        return self.lived[-1][1]

    @property
    def ready(self) -> bool:
        return self.process.condition is Condition.RUNNING and self._life is not None and self._life.ready

    def crash(self) -> None:
        """As `kill -9`: not one more step. What it has sent goes its way, and nobody is told."""
        process, stage = self.process, self._stage
        process.kill()
        stage.story.tell(f"{process.name} dies, at its step {process.steps}")
        stage.later(SESSION_SECONDS, self.transport.expel)
        self._presume_dead(log_uniform(self._draw("presuming"), 0.1, _SESSION_LOST_SECONDS), for_ever=True)
        self._start_again()

    def leave(self) -> None:
        """As a deployment ends it."""
        if self._life is not None and self.process.condition is Condition.RUNNING:
            self._stage.story.tell(f"{self.process.name} is told to stop")
            self._life.stop()

    def go_on(self, process: Process) -> None:
        if process.condition is Condition.STOPPED:
            self._stage.story.tell(f"{process.name} goes on")
            if self._life is not None:
                self._life.presumed_dead(False)
            process.go_on()
            self.tempt()

    def bury(self) -> list[asyncio.Task[object]]:
        """After the run. Nothing that is written from here on is looked at."""
        self._over = True
        tasks: list[asyncio.Task[object]] = []
        for process, transport in self.lived:
            transport.kill()
            tasks += process.bury()
        return tasks

    def _pause(self, seconds: float) -> None:
        process, stage = self.process, self._stage
        process.stop()
        stage.story.tell(f"{process.name} stands still for {seconds:.3f} s, at its step {process.steps}")
        if seconds > SESSION_SECONDS:
            stage.later(SESSION_SECONDS, self.transport.expel)
        if seconds > _SESSION_LOST_SECONDS:
            self._presume_dead(_SESSION_LOST_SECONDS, for_ever=False)
        stage.later(seconds, partial(self.go_on, process))

    def _presume_dead(self, seconds: float, *, for_ever: bool) -> None:
        process, life = self.process, self._life

        def presume() -> None:
            if life is not None and (for_ever or process.condition is Condition.STOPPED):
                life.presumed_dead(True)

        self._stage.later(seconds, presume)

    def _ended(self, process: Process, main: asyncio.Task[object]) -> None:
        if self._over:
            return
        process.kill()  # whatever it left running ends with it
        error = None if main.cancelled() else main.exception()
        self._stage.story.tell(f"{process.name} ends{'' if error is None else f': {_innermost(error)!r}'}")
        if error is not None and not isinstance(_innermost(error), _EXPECTED):
            self.failures.append(_innermost(error))
        self._start_again()

    def _start_again(self) -> None:
        calm = self._stage.chance.calm
        self._stage.later(0.5 if calm else log_uniform(self._draw("absence"), *_ABSENCE_SECONDS), self.start)

    def _draw(self, what: str) -> float:
        return self._stage.chance.stream(f"{what} {self.name}").random()


async def _lived(life: Life, transport: MemoryTransport) -> None:
    async with transport:
        await life.run()


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
