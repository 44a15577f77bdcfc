"""For tests of your own agents: a choreography on a broker in memory, in virtual time.

    from maypole.bus.testing import Choreography

    async def test_a_question_becomes_a_report() -> None:
        async with Choreography([research, analysis, report]) as world:
            flow = await world.publish(ResearchRequested(question="What is a list?"))
            assert await flow.finished() == "committed"
            assert flow.types == ("research.requested", "research.completed", "analysis.ready", "report.published")

The agents run as they do in production: the same deliveries, contracts, retries, dead letters and journal. Only the
broker is a simulation, and time: waiting costs nothing, so a handler's deadline of five minutes passes at once. What a
single handler decides needs none of this: it is a function that a test can call.
"""

from maypole.bus.memory.faults import Faults
from maypole.bus.testing.choreography import Choreography
from maypole.bus.testing.errors import AgentCrashed, NoSubscriber, NotFinished, NotPure, SimulationFailed
from maypole.bus.testing.flow import Flow, FlowStep
from maypole.bus.testing.records import DeadLetter, FlowEvent
from maypole.bus.testing.simulation import Odds, World, simulate, take_back, witness

__all__ = [
    "AgentCrashed", "Choreography", "DeadLetter", "Faults", "Flow", "FlowEvent", "FlowStep", "NoSubscriber", "NotFinished",
    "NotPure", "Odds", "SimulationFailed", "World", "simulate", "take_back",
    "witness",
]  # fmt: skip
