"""The saga: what a flow's journal says about it. Pure: no clock, no I/O, no randomness."""

from maypole.services.saga.fold import ExpectedStep, FlowState, State, fold

__all__ = ["ExpectedStep", "FlowState", "State", "fold"]
