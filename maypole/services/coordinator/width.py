"""How many partitions the journal has: fixed for life, because a flow's records must stay in one total order.

Kafka lets anybody add partitions to a topic. Keys move then: what a flow writes from that time on lies in another partition than what
it wrote before, and nobody can fold the two together.
"""

from __future__ import annotations

from maypole.bus.partitioning import partition_of
from maypole.schemas.identifiers import FlowId
from maypole.schemas.topics import JOURNAL

THEN = (
    "stop agents, publishers and coordinators; note what is under way (`maypole flows list`), for it has to be looked after by hand; "
    f"delete the topic {JOURNAL}; `maypole topics apply` makes it anew; start them again"
)


class JournalRepartitioned(RuntimeError):
    """Partitions were added to the journal under a running coordinator."""

    def __init__(self, expected: int, found: int) -> None:
        super().__init__(
            f"expected {expected} partitions of {JOURNAL}, as there were when this coordinator started, found {found}: records of one flow "
            f"now lie in two of them, so no end of it can be told. {THEN}"
        )


def lies_elsewhere(flow: FlowId, partition: int, partitions: int) -> bool:
    """Whether what is written of this flow from now on lies in another partition than its beginning."""
    return partition_of(flow.encode(), partitions) != partition
