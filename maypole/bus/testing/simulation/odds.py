"""What may go wrong in a simulated run, and how often."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Odds:
    """Each between 0, never, and 1, always.

    Of each start of a process: `crash` (it dies between any two of its steps), `pause` (it stands still, up to longer than
    its group and its leases wait for it, and then goes on as if nothing had happened).
    Every few seconds: `leave` (an instance stops as for a deployment, and is started again), `expel` (its group gives up on
    an instance that lives), `outage` (no broker answers for a while), `expire` (retention deletes what an agent has not read).
    Of each record: `twice` (written twice), `late` (readable some time after it was written), `refused` (the broker will
    not take it, which ends the process that wrote it). Of each delivery: `again` (delivered twice).
    Of each call of broker, ledger or witness: `slow` (it takes seconds). Of each call of a ledger: `unavailable` (it fails,
    and what it asked for was done, or was not).
    """

    crash: float = 0.7
    pause: float = 0.2
    leave: float = 0.05
    expel: float = 0.05
    outage: float = 0.03
    expire: float = 0.0
    twice: float = 0.01
    late: float = 0.03
    refused: float = 0.0005
    again: float = 0.01
    slow: float = 0.02
    unavailable: float = 0.02

    def __post_init__(self) -> None:
        wrong = [field.name for field in fields(self) if not 0 <= getattr(self, field.name) <= 1]
        if wrong:
            raise ValueError(f"expected odds between 0 and 1, found {', '.join(f'{name}={getattr(self, name)!r}' for name in wrong)}")

    @classmethod
    def none(cls) -> Odds:
        """Nothing goes wrong."""
        return cls(**{field.name: 0.0 for field in fields(cls)})
