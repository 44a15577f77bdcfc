"""What the saga coordinator tells an agent, on `<agent>.commands`. The flow and the command's id stand in the envelope.

A command may come any number of times, and any time later: its answer is the agent's own record in the journal. Each is about
one step of one subscription; `generation` counts what operators have decided about the step, from 1.
"""

from typing import Annotated, Final, TypeAlias

from pydantic import Field

from maypole.schemas.event import Event
from maypole.schemas.journal import Generation, Identifier

StepIdentifier = Annotated[Identifier, Field(pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
"""As ids of steps are derived. Rows are kept under it, in stores that know nothing else."""


class Fence(Event, type="maypole.fence"):
    """Let the step never run; if it has run, say how it ended."""

    step_id: StepIdentifier
    subscription: Identifier
    generation: Generation = 1


class Compensate(Event, type="maypole.compensate"):
    """Undo what the step changed outside."""

    step_id: StepIdentifier
    subscription: Identifier
    generation: Generation = 1


class Expire(Event, type="maypole.expire"):
    """The parts of a join did not come in time: end its step, one way or the other."""

    step_id: StepIdentifier
    subscription: Identifier
    generation: Generation = 1


class Retry(Event, type="maypole.retry"):
    """Give a failed step another chance, because an operator decided so."""

    step_id: StepIdentifier
    subscription: Identifier
    generation: Generation = 1


StepCommand: TypeAlias = Fence | Compensate | Expire | Retry

COMMANDS: Final[tuple[type[StepCommand], ...]] = (Fence, Compensate, Expire, Retry)
