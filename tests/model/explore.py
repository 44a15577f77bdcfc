"""Every interleaving of a scenario, breadth first: the invariants in every state, and a way to an end from each.

A world is a tuple of small numbers, canonical: two worlds are one state if and only if nothing tells them apart. What can happen
to one step depends only on that step, on whether its trigger is visible and on its commands, so it is worked out once.

Two reductions, both exact: a delivery that says nothing new to anybody (a record that changes no state, an event that is visible
already) is made at once and alone, because it commutes with everything and disables nothing; and an offset is committed as soon
as it may be, because a crash in between repeats only what changes nothing.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from maypole.bus.ledger.step import State as RowState
from maypole.bus.ledger.transitions import Compensate, Verdict, apply
from maypole.schemas.journal import Decision, Effect
from maypole.services.saga import Ask, Phase, State
from maypole.services.saga.facts import Outcome
from maypole.services.saga.undoing import is_decided
from tests.model.agents import GONE, HERE, NOW, SKEW, Agents, Lane, Move
from tests.model.coordinator import Coordinator, RecordKey, View
from tests.model.records import Records
from tests.model.scenario import Instance, Scenario

_DECISIONS: Final = {"R": Decision.RETRY, "V": Decision.RESOLVED, "S": Decision.SKIP}


class World(NamedTuple):
    """`seen` and `commands` are sets of bits that only grow; `crashes`, `silences` and `decisions` count what is left of them."""

    saga: int
    seen: int
    commands: int
    crashes: int
    silences: int
    decisions: int
    late: bool
    lanes: tuple[int, ...]


@dataclass
class Report:
    scenario: str
    states: int = 0
    moves: int = 0
    sagas: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    """By invariant: what went wrong, and the way there."""
    whole: bool = True
    seconds: float = 0.0

    def __str__(self) -> str:
        ends = ", ".join(f"{name} {count}" for name, count in sorted(self.ends.items()))
        cut = "" if self.whole else " CUT"
        found = "; ".join(self.wrong) or "none"
        return (
            f"{self.scenario}: {self.states} states{cut}, {self.moves} moves, {self.sagas} sagas; "
            f"ends: {ends}; violations: {found}; {self.seconds:.1f} s"
        )


class Explorer:
    def __init__(self, scenario: Scenario, agents: type[Agents] = Agents) -> None:
        self.scenario = scenario
        self.agents = agents(scenario)
        self.coordinator = Coordinator(scenario, Records(scenario))
        self._lanes: list[Lane] = []
        self._lane_ids: dict[Lane, int] = {}
        self._moves: dict[tuple[int, int, bool, int], tuple[tuple[Move, int], ...]] = {}
        self._masks: dict[int, int] = {}
        self._beside = [
            [other for other in scenario.steps if other is not step and other.reaction.agent == step.reaction.agent]
            for step in scenario.steps
        ]
        """By step: the others of its agent."""
        self._decisions: dict[int, list[tuple[int, RecordKey]]] = {}

    def explore(self, states_max: int = 5_000_000, *, live: bool = True, stop_at: str = "") -> Report:
        """`live`: whether every state must be able to reach an end. `stop_at`: the invariant whose violation is looked for."""
        began = time.monotonic()
        first = self.first()
        report = Report(self.scenario.name)
        ids = {first: 0}
        worlds, parents, names = [first], array("l", [-1]), [""]
        sources, targets = array("l"), array("l")
        at = 0
        while at < len(worlds):
            world = worlds[at]
            for name, after, wrong in self._next(world):
                known = ids.get(after)
                if known is None:
                    known = ids[after] = len(worlds)
                    worlds.append(after)
                    parents.append(at)
                    names.append(name)
                    wrong = [*wrong, *self._wrong(after)]
                for each in wrong:
                    if each.split()[0] not in report.wrong:
                        path = [*self._path(at, parents, names), name]
                        report.wrong[each.split()[0]] = f"{each} ({len(path)} moves: {'; '.join(path)})"
                report.moves += 1
                if live:
                    sources.append(at)
                    targets.append(known)
            at += 1
            if stop_at in report.wrong or len(worlds) > states_max:
                report.whole = not at < len(worlds)
                break
        report.states, report.sagas = len(worlds), self.coordinator.saga_count
        ends = [index for index, world in enumerate(worlds) if self._is_end(world)]
        for index in ends:
            name = self._view(worlds[index]).state.value
            report.ends[name] = report.ends.get(name, 0) + 1
        if live and report.whole and stop_at not in report.wrong:
            stranded = _cannot_reach(len(worlds), ends, sources, targets)
            if stranded is not None:
                path = self._path(stranded, parents, names)
                state = self._view(worlds[stranded]).state
                report.wrong["L1"] = f"L1 no way to an end from a state that is {state} ({len(path)} moves: {'; '.join(path)})"
        report.seconds = time.monotonic() - began
        return report

    def first(self) -> World:
        scenario = self.scenario
        return World(
            self.coordinator.first, 1, 0, scenario.crashes, scenario.silences, scenario.decisions_max if scenario.decisions else 0,
            not scenario.deadline, tuple(self._lane(Lane()) for _ in scenario.steps),
        )  # fmt: skip

    def _is_end(self, world: World) -> bool:
        """What waits for a person is one where nobody is left to decide."""
        return self._view(world).state.is_end or (self._waits_for_a_person(world) and not world.decisions)

    def _waits_for_a_person(self, world: World) -> bool:
        view = self._view(world)
        return view.state is State.STUCK or bool(view.saga.contradictions)

    @staticmethod
    def _path(at: int, parents: array[int], names: list[str]) -> list[str]:
        path = []
        while at > 0:
            path.append(names[at])
            at = parents[at]
        return path[::-1]

    # What can happen.

    def _next(self, world: World) -> Iterator[tuple[str, World, list[str]]]:
        choices: list[tuple[Instance, Move, int]] = []
        for step, lane in zip(self.scenario.steps, world.lanes, strict=True):
            for move, after in self._moves_of(step, lane, world):
                if self._says_nothing(world, step, move):
                    yield self._made(world, step, move, after)
                    return
                choices.append((step, move, after))
        for step, move, after in choices:
            yield self._made(world, step, move, after)
        yield from self._outside(world)

    def _moves_of(self, step: Instance, lane: int, world: World) -> tuple[tuple[Move, int], ...]:
        """Those that change anything."""
        return tuple(
            (move, after)
            for move, after in self._all_moves_of(step, lane, world)
            if (after != lane or (move.record is not None and self.coordinator.changes(world.saga, move.record)) or move.wrong)
            and (not move.crash or world.crashes)
        )

    def _all_moves_of(self, step: Instance, lane: int, world: World) -> tuple[tuple[Move, int], ...]:
        triggered = self._is_triggered(step, world.seen)
        commands = world.commands & self._mask(step)
        key = (step.index, lane, triggered, commands)
        found = self._moves.get(key)
        if found is None:
            known = [command for bit, command in enumerate(self.coordinator.commands) if commands >> bit & 1]
            told = tuple((command.kind, command.generation) for command in known)
            moves = self.agents.moves(step, self._lanes[lane], triggered, told)
            found = self._moves[key] = tuple((move, self._lane(move.lane)) for move in moves)
        return found

    def _says_nothing(self, world: World, step: Instance, move: Move) -> bool:
        if not move.name.startswith(("journal", "output")) or move.wrong:
            return False
        if move.record is not None:
            return not self.coordinator.changes(world.saga, move.record)
        return not move.seen & ~world.seen

    def _is_triggered(self, step: Instance, seen: int) -> bool:
        return step.parts & seen == step.parts

    def _mask(self, step: Instance) -> int:
        """The bits of the commands to this step; commands get their bits as they come to be known."""
        count = len(self.coordinator.commands)
        if self._masks.get(-1) != count:
            self._masks = {each.index: 0 for each in self.scenario.steps}
            indexes = {each.step_id: each.index for each in self.scenario.steps}
            for bit, command in enumerate(self.coordinator.commands):
                for other in self.scenario.steps:
                    meant = self.scenario.steps[indexes[command.step_id]] if command.step_id in indexes else None
                    if meant is not None and (
                        meant is other or (command.kind is Ask.FENCE and self.agents.shares_tombstones(meant, other))
                    ):
                        self._masks[other.index] |= 1 << bit
            self._masks[-1] = count
        return self._masks[step.index]

    def _made(self, world: World, step: Instance, move: Move, lane: int) -> tuple[str, World, list[str]]:
        wrong = [move.wrong] if move.wrong else []
        if move.name == "undo":
            wrong += self._undone_wrongly(world, step)
        elif move.name == "act":
            wrong += self._acting_too_late(world, step)
        lanes = (*world.lanes[: step.index], lane, *world.lanes[step.index + 1 :])
        if move.whole and self._beside[step.index]:
            lanes = self._died_beside(step, lanes)
        after = world._replace(lanes=lanes, seen=world.seen | move.seen, crashes=world.crashes - move.crash)
        if move.record is not None:
            after, more = self._journaled(after, move.record)
            wrong += more
        return f"{move.name} {step.name}", after, wrong

    def _died_beside(self, step: Instance, lanes: tuple[int, ...]) -> tuple[int, ...]:
        """Commands need nothing of this: each has a task of its own, and comes again until its answer is acknowledged."""
        left = list(lanes)
        for other in self._beside[step.index]:
            left[other.index] = self._lane(self.agents.died(other, self._lanes[left[other.index]]))
        return tuple(left)

    def _journaled(self, world: World, record: RecordKey) -> tuple[World, list[str]]:
        folded = self.coordinator.fold(world.saga, record)
        wrong = [*folded.wrong]
        if folded.commands & ~world.commands:
            wrong += self._commanded_wrongly(world._replace(saga=folded.saga), folded.commands & ~world.commands)
        before, after = self._view(world), self.coordinator.view(folded.saga)
        if record[0] == "late" and before.phase is Phase.RUNNING and after.phase is Phase.ABORTING:
            step = self.scenario.steps[int(str(record[1]))]
            if before.outcomes.get(step.step_id) is Outcome.COMPLETED:
                wrong.append(f"I14 {step.name} is late although the journal says that it is done")
        return world._replace(saga=folded.saga, commands=world.commands | folded.commands), wrong

    def _outside(self, world: World) -> Iterator[tuple[str, World, list[str]]]:
        """Timers and people."""
        view = self._view(world)
        if not world.late and view.phase in (Phase.RUNNING, Phase.FORWARD_ONLY):
            after, wrong = self._journaled(world, ("flow late",))
            yield "the flow is late", after._replace(late=True), wrong
        for step in self.scenario.steps:
            joins = step.reaction.within_ms is not None and step.step_id in view.forward.reach
            if joins or self.scenario.is_in(step.name, self.scenario.late):
                key = ("late", step.index)
                if self.coordinator.changes(world.saga, key):
                    yield f"{step.name} is late", *self._journaled(world, key)
        for bit, command in enumerate(self.coordinator.commands):
            if view.outstanding >> bit & 1:
                gone = any(command.step_id == s.step_id and self._lanes[world.lanes[s.index]].delivery == GONE for s in self.scenario.steps)
                if gone or world.silences:
                    after, wrong = self._journaled(world, ("command late", command.id))
                    yield f"no answer to {command.kind} {command.agent}", after._replace(silences=world.silences - (not gone)), wrong
        if world.decisions:
            yield from self._decided(world)

    def _decided(self, world: World) -> Iterator[tuple[str, World, list[str]]]:
        for index, key in self._decisions_in(world):
            after, wrong = self._journaled(world._replace(decisions=world.decisions - 1), key)
            if key[2] is Decision.RESOLVED:
                # Whoever vouches for a step has seen to it that nothing of it is left.
                lane = self._lane(self._lanes[after.lanes[index]]._replace(effect=False))
                after = after._replace(lanes=(*after.lanes[:index], lane, *after.lanes[index + 1 :]))
            yield f"{key[2]} {self.scenario.steps[index].name}", after, wrong

    def _decisions_in(self, world: World) -> list[tuple[int, RecordKey]]:
        """Those that something waits for: any other changes nothing."""
        found = self._decisions.get(world.saga)
        if found is None:
            saga = self._view(world).saga
            keys: list[tuple[int, RecordKey]] = [
                (step.index, ("decided", step.index, _DECISIONS[letter], saga.of(step.step_id).generation))
                for step in self.scenario.steps
                for letter in self.scenario.decisions
            ]
            found = [(index, key) for index, key in keys if self.coordinator.fold(world.saga, key).saga != world.saga]
            self._decisions[world.saga] = found
        return found

    # Invariants.

    def _wrong(self, world: World) -> list[str]:
        view = self._view(world)
        wrong: list[str] = []
        lanes = [self._lanes[lane] for lane in world.lanes]
        decided = {step_id for step_id, facts in view.saga.steps.items() if facts.decision is not None}
        if view.state in (State.COMPENSATED, State.COMPENSATED_MANUAL):
            left = [s.name for s, lane in zip(self.scenario.steps, lanes, strict=True) if lane.effect and s.step_id not in decided]
            if left:
                wrong.append(f"I1 the effect of {left} is there after COMPENSATED")
            if view.state is State.COMPENSATED and decided:
                wrong.append("I15 a person vouches for a step, and the state does not say so")
        if view.phase in (Phase.ABORTING, Phase.REOPENED):
            lost = [
                s.name
                for s, lane in zip(self.scenario.steps, lanes, strict=True)
                if lane.effect and s.step_id not in view.unsettled and not is_decided(view.saga.of(s.step_id))
            ]
            if lost:
                wrong.append(f"I12 the effect of {lost} is on no list")
            if view.state is State.STUCK and not decided and not any(facts.stuck for facts in view.saga.steps.values()):
                pivots = [s for s in self.scenario.steps if s.reaction.is_pivot]
                wrong += [
                    f"I7 the pivot {s.name} has happened, and the flow does not go forward"
                    for s in pivots
                    if view.outcomes.get(s.step_id) is Outcome.COMPLETED
                ]
        if view.phase is Phase.COMMITTED and any(self._is_asked_to_undo(world, step) for step in self.scenario.steps):
            wrong.append("I5 something is to be undone in a committed flow")
        if view.phase in (Phase.COMMITTED, Phase.FORWARD_ONLY):
            wrong += self._missing(view, lanes, final=view.phase is Phase.COMMITTED, world=world)
        for step, lane in zip(self.scenario.steps, lanes, strict=True):
            if lane.row is not None and lane.row.state is RowState.COMPENSATED and lane.effect:
                wrong.append(f"I4 the effect of {step.name} is there after its undo")
            if lane.ran and view.outcomes.get(step.step_id) is Outcome.FENCED:
                wrong.append(f"I6 {step.name} is known as fenced and has acted")
            if lane.undone > 1:
                wrong.append(f"I11 {step.name} is undone more than once")
            if self._is_not_undone(world, step):
                wrong.append(f"I16 {step.name} is to be undone, its row allows it, and its agent does not do it")
        if not view.timed and not view.state.is_end and not self._waits_for_a_person(world):
            wrong.append(f"L2 nothing is due, nobody has to look, and the flow is {view.state}")
        if view.outstanding & ~world.commands:
            wrong.append("I10 a command is due that was never given out")
        return wrong

    def _missing(self, view: View, lanes: list[Lane], *, final: bool, world: World) -> list[str]:
        wrong = []
        for step, lane in zip(self.scenario.steps, lanes, strict=True):
            place = view.forward.reach.get(step.step_id)
            left_behind = self._is_left_behind(view, step)
            open_still = view.outcomes.get(step.step_id, Outcome.OPEN) is Outcome.OPEN and (lane.row is None or not lane.row.state.final)
            if final and left_behind and open_still and self._is_triggered(step, world.seen):
                wrong.append(f"I2 the flow is committed, and {step.name} lives, to which a step led that a person went past")
            if place is None or place.facts.decision is not None:
                if final and place is None and (lane.effect or (lane.delivery == HERE and lane.row is not None)):
                    wrong.append(f"I2 the flow is committed and did not wait for {step.name}")
                continue
            if left_behind and place.facts.outcome is not Outcome.COMPLETED:
                continue  # the word on its cause holds for it, too
            if place.facts.outcome is Outcome.FENCED:
                wrong.append(f"I2 the flow goes forward and needs {step.name}, which is fenced")
            acts = step.reaction.acts_outside and not place.failed_harmlessly
            if final and acts and not lane.effect:
                wrong.append(f"I2 the flow is committed and {step.name} has no effect")
        return wrong

    def _is_left_behind(self, view: View, step: Instance) -> bool:
        """A person vouches for a step that it can come of, and not for itself."""
        if view.saga.of(step.step_id).decision is not None:
            return False
        decided = (each for each in self.scenario.steps if view.saga.of(each.step_id).decision is not None)
        return any(step.index in each.descendants for each in decided)

    def _undone_wrongly(self, world: World, step: Instance) -> list[str]:
        row = self._lanes[world.lanes[step.index]].row
        wrong = [f"I13 {step.name} is undone and never ran"] if row is None or row.attempt == 0 else []
        for index in step.descendants:
            other, lane = self.scenario.steps[index], self._lanes[world.lanes[index]]
            if not other.reaction.acts_outside or self._view(world).saga.of(other.step_id).decision is not None:
                continue
            may_begin = (lane.row is None or lane.row.state is RowState.STARTED) and self._is_triggered(other, world.seen)
            if lane.effect or lane.attempts or may_begin:
                wrong.append(f"I3 {step.name} is undone while {other.name} lives or may live")
        return wrong

    def _acting_too_late(self, world: World, step: Instance) -> list[str]:
        undone = [
            other.name
            for other, lane in zip(self.scenario.steps, world.lanes, strict=True)
            if step.index in other.descendants and self._lanes[lane].undone
        ]
        if not undone or self._view(world).saga.of(step.step_id).decision is not None:
            return []
        return [f"I3 {step.name} acts although {undone} led to it and is undone"]

    def _commanded_wrongly(self, world: World, commands: int) -> list[str]:
        new = [command for bit, command in enumerate(self.coordinator.commands) if commands >> bit & 1]
        if not any(command.kind is Ask.COMPENSATE for command in new):
            return []
        wrong = []
        for step, number in zip(self.scenario.steps, world.lanes, strict=True):
            lane = self._lanes[number]
            decided = self._view(world).saga.of(step.step_id).decision is not None
            undecided = lane.row is not None and lane.row.state in (RowState.STARTED, RowState.DONE)
            if step.reaction.is_pivot and undecided and not decided:
                wrong.append(f"I7 something is undone while the pivot {step.name} may have happened")
            asked = any(command.step_id == step.step_id and command.kind is Ask.COMPENSATE for command in new)
            if asked and lane.row is not None and lane.row.effect is Effect.NONE and lane.row.state.final:
                wrong.append(f"I13 {step.name} is to be undone, and its row says that it has no effect")
        return wrong

    def _is_asked_to_undo(self, world: World, step: Instance) -> bool:
        mask = world.commands & self._mask(step)
        return any(mask >> bit & 1 and command.kind is Ask.COMPENSATE for bit, command in enumerate(self.coordinator.commands))

    def _is_not_undone(self, world: World, step: Instance) -> bool:
        """The table is asked here, and not the agents: whatever else they go by, it must not keep them from an undo."""
        number = world.lanes[step.index]
        lane = self._lanes[number]
        if lane.row is None or lane.delivery == GONE or not self._is_asked_to_undo(world, step):
            return False
        if apply(lane.row, Compensate(NOW, SKEW)).verdict is not Verdict.UNDO:
            return False
        after = (move.lane for move, _ in self._all_moves_of(step, number, world))
        return not any(each.undone > lane.undone or (each.row is not None and each.row.state is RowState.COMPENSATED) for each in after)

    def _view(self, world: World) -> View:
        return self.coordinator.view(world.saga)

    def _lane(self, lane: Lane) -> int:
        number = self._lane_ids.get(lane)
        if number is None:
            number = self._lane_ids[lane] = len(self._lanes)
            self._lanes.append(lane)
        return number


def _cannot_reach(count: int, ends: list[int], sources: array[int], targets: array[int]) -> int | None:
    """The first state from which no end can be reached."""
    starts = array("l", [0]) * (count + 1)
    for target in targets:
        starts[target + 1] += 1
    for index in range(count):
        starts[index + 1] += starts[index]
    fill, before = array("l", starts), array("l", [0]) * len(sources)
    for source, target in zip(sources, targets, strict=True):
        before[fill[target]] = source
        fill[target] += 1
    reached = bytearray(count)
    work = list(ends)
    for index in ends:
        reached[index] = 1
    while work:
        index = work.pop()
        for source in before[starts[index] : starts[index + 1]]:
            if not reached[source]:
                reached[source] = 1
                work.append(source)
    return None if all(reached) else reached.index(0)
