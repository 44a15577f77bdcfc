"""Breakers around what a handler calls, by name: `async with context.dependency("openai"): ...`.

An outage of one service then stops only those who need it, and only where they do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import ParamSpec, TypeVar

from maypole.bus.breaker import Breaker, Circuit, State, Told, Transition
from maypole.bus.memos import running_loop
from maypole.bus.outage import Unavailable, causes_of, unavailable_in

P = ParamSpec("P")
T = TypeVar("T")

Tell = Callable[[str, Transition], None]
"""(name of the dependency, what became of its breaker): for logs, traces and the catalog. Neither raises nor waits."""

_inside: ContextVar[frozenset[tuple[int, str]]] = ContextVar("maypole.dependencies.inside", default=frozenset())


class Dependencies:
    """The breakers of one agent. A name that nobody declared gets a breaker of its own on first use, with the defaults."""

    def __init__(self, now: Callable[[], float], tell: Tell, breakers: Mapping[str, Breaker] | None = None) -> None:
        """`now` gives seconds of a clock that never goes back."""
        self._now = now
        self._tell = tell
        self._circuits = {name: Circuit(breaker) for name, breaker in (breakers or {}).items()}
        self._because: dict[str, str] = {}
        self._failures: dict[str, tuple[str, BaseException]] = {}
        """By key: the last failure that a breaker counted which is open since, or was already."""
        self.loop = running_loop()
        self._waiting: list[asyncio.Future[None]] = []
        """Those that wait for what becomes of a probe."""

    def states(self) -> Mapping[str, State]:
        return {name: circuit.state for name, circuit in self._circuits.items()}

    def circuit(self, name: str) -> Circuit:
        return self._circuits.setdefault(name, Circuit(Breaker()))

    def over(self, key: str) -> bool:
        """The step is not worked on any more: what it began and never ended is nobody's probe. True if it was one."""
        self._failures.pop(key, None)
        tried = [name for name, circuit in self._circuits.items() if circuit.probe == key]
        for name in tried:
            self._circuits[name] = self._circuits[name].left(key).circuit
            self._answer()
        return bool(tried)

    def answers_for(self, key: str, error: BaseException) -> str | None:
        """The dependency whose outage this failure of a step comes from: it was refused, or met the outage itself."""
        unavailable = unavailable_in(error)
        if unavailable is not None:
            return unavailable.dependency
        name, failure = self._failures.get(key, (None, None))
        return name if failure is not None and failure in causes_of(error) else None

    def use(self, name: str, key: str, timeout_seconds: float | None = None) -> Use:
        """`key` is the step's id: its attempts count once. Taking longer than `timeout_seconds` is a failure that counts."""
        return Use(self, name, key, timeout_seconds)

    async def _enter(self, name: str, key: str) -> None:
        """Waits while a probe is under way, which takes as long as one call. Raises `Unavailable` while the breaker is open."""
        while True:
            circuit, allowed, again_at, transition = self.circuit(name).ask(key, self._now())
            self._take(name, Told(circuit, transition))
            if allowed:
                return
            if again_at is not None:
                raise Unavailable(name, again_at, self._because.get(name, ""))
            decided = asyncio.get_running_loop().create_future()
            self._waiting.append(decided)
            await decided

    def _leave(self, name: str, key: str, error: BaseException | None) -> None:
        circuit, now = self.circuit(name), self._now()
        if error is None:
            told = circuit.succeeded(key, now)
        elif isinstance(error, Exception):
            told = circuit.failed(key, error, now)
            if told.circuit.state is not State.CLOSED and circuit.breaker.counted(error):
                self._failures[key] = name, error
        else:  # cancelled: nobody waited for the answer
            told = circuit.left(key)
        self._take(name, told)
        # Without a wait: whoever leaves may be cancelled, and those who wait must hear of it all the same.
        self._answer()

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        for decided in waiting:
            if not decided.done():
                decided.set_result(None)

    def _take(self, name: str, told: Told) -> None:
        self._circuits[name] = told.circuit
        if told.transition is not None:
            self._because[name] = told.transition.because
            self._tell(name, told.transition)


class Use:
    """One use of a dependency: a context manager, or `await use.call(function, ...)`. Not to be entered twice.

    Inside of it the same dependency may be used again, by this task or those that it starts: that is one use.
    """

    def __init__(self, dependencies: Dependencies, name: str, key: str, timeout_seconds: float | None) -> None:
        self._dependencies = dependencies
        self._mark = (id(dependencies), name)
        self._name = name
        self._key = key
        self._timeout = None if timeout_seconds is None else asyncio.timeout(timeout_seconds)
        self._entered: Token[frozenset[tuple[int, str]]] | None = None

    def __enter__(self) -> None:
        """For a plain function, which runs in a thread of its own: it may wait there."""
        loop = self._dependencies.loop
        if loop is None or running_loop() is not None or self._timeout is not None:
            raise TypeError(f"dependency({self._name!r}): expected `async with` in a coroutine, and timeout_seconds there only")
        held = _inside.get()
        if self._mark not in held:
            asyncio.run_coroutine_threadsafe(self._dependencies._enter(self._name, self._key), loop).result()
            self._entered = _inside.set(held | {self._mark})

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        loop = self._dependencies.loop
        if self._entered is not None and loop is not None:
            _inside.reset(self._entered)
            loop.call_soon_threadsafe(self._dependencies._leave, self._name, self._key, error)

    async def __aenter__(self) -> None:
        held = _inside.get()
        if self._mark in held:
            return
        await self._dependencies._enter(self._name, self._key)
        self._entered = _inside.set(held | {self._mark})
        if self._timeout is not None:
            await self._timeout.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._entered is None:
            return
        _inside.reset(self._entered)
        try:
            if self._timeout is not None:
                await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError as late:
            self._dependencies._leave(self._name, self._key, late)
            raise
        self._dependencies._leave(self._name, self._key, error)

    async def call(self, function: Callable[P, Awaitable[T]], *arguments: P.args, **options: P.kwargs) -> T:
        async with self:
            return await function(*arguments, **options)
