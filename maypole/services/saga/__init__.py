"""The saga: what a flow's journal says about it, and what has to be told to whom. Pure: no clock, no I/O, no randomness."""

from maypole.services.saga.deadlines import Deadline, deadlines
from maypole.services.saga.decisions import Unsettled, Waiting, choices, unsettled
from maypole.services.saga.engine import REDUCER_VERSION, UnknownPin, outstanding, step
from maypole.services.saga.facts import Alarm, Ask, Cause, Command, EventRef, Facts, Outcome, Phase, Saga, State, Violation, Why
from maypole.services.saga.fold import ExpectedStep, FlowState, fold

__all__ = [
    "REDUCER_VERSION", "Alarm", "Ask", "Cause", "Command", "Deadline", "EventRef", "ExpectedStep", "Facts", "FlowState", "Outcome",
    "Phase", "Saga", "State", "UnknownPin", "Unsettled", "Violation", "Waiting", "Why", "choices", "deadlines", "fold", "outstanding",
    "step", "unsettled",
]  # fmt: skip
