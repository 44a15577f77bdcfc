"""The decision table, as data: what a record that brings news does in each phase. The engine and the model checker share it.

A record that says nothing new does nothing in any phase; it never gets here. STUCK is no row: it is ABORTING, FORWARD_ONLY or
REOPENED while something waits for a person, and its records are read as in those.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from maypole.services.saga.facts import Phase


class News(StrEnum):
    """What a record says that was not known."""

    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    """Failed for good, or abandoned."""
    FENCED = "fenced"
    UNDONE = "undone"
    UNDO_FAILED = "undo_failed"
    DEADLINE = "deadline"
    ABORT = "abort"
    DECISION = "decision"
    CONTRADICTION = "contradiction"
    """The step is known to have ended in another way, and no step can end in both."""


class Rule(StrEnum):
    """What is done about it. Whatever is kept, the phase is decided anew from all that is known."""

    NOTHING = "nothing"
    KEEP = "keep"
    KEEP_AND_ALARM = "keep_and_alarm"
    ALARM = "alarm"
    ABORT = "abort"
    EXPIRE_OR_ABORT = "expire_or_abort"
    """The scope is a join that may expire: tell its agent. Anything else that is not final: abort."""
    OVERDUE = "overdue"
    """The scope is a command without its answer: STUCK."""
    UNDO_FAILED = "undo_failed"
    """Retryable: the command stays out. Otherwise STUCK."""
    CONTRADICT = "contradict"
    """After a commit: alarm, keep what is said, and wait for a person; nothing is undone."""
    REOPEN = "reopen"
    """After a compensation: keep what is said; if anything is left now, reopen and alarm."""
    DECIDE = "decide"


# fmt: off
_LINES: Final = {
    #                    RUNNING               ABORTING          FORWARD_ONLY         COMMITTED        COMPENSATED   REOPENED
    News.STARTED:       (Rule.KEEP,            Rule.KEEP,        Rule.KEEP,           Rule.CONTRADICT, Rule.REOPEN,  Rule.KEEP),
    News.COMPLETED:     (Rule.KEEP,            Rule.KEEP,        Rule.KEEP,           Rule.CONTRADICT, Rule.REOPEN,  Rule.KEEP),
    News.FAILED:        (Rule.KEEP,            Rule.KEEP,        Rule.KEEP,           Rule.CONTRADICT, Rule.REOPEN,  Rule.KEEP),
    News.FENCED:        (Rule.KEEP_AND_ALARM,  Rule.KEEP,        Rule.KEEP_AND_ALARM, Rule.CONTRADICT, Rule.NOTHING, Rule.KEEP),
    News.UNDONE:        (Rule.KEEP_AND_ALARM,  Rule.KEEP,        Rule.KEEP_AND_ALARM, Rule.CONTRADICT, Rule.NOTHING, Rule.KEEP),
    News.UNDO_FAILED:   (Rule.ALARM,           Rule.UNDO_FAILED, Rule.ALARM,          Rule.CONTRADICT, Rule.NOTHING, Rule.UNDO_FAILED),
    News.DEADLINE:      (Rule.EXPIRE_OR_ABORT, Rule.OVERDUE,     Rule.OVERDUE,        Rule.NOTHING,    Rule.NOTHING, Rule.OVERDUE),
    News.ABORT:         (Rule.ABORT,           Rule.NOTHING,     Rule.NOTHING,        Rule.NOTHING,    Rule.NOTHING, Rule.NOTHING),
    News.DECISION:      (Rule.DECIDE,          Rule.DECIDE,      Rule.DECIDE,         Rule.DECIDE,     Rule.DECIDE,  Rule.DECIDE),
    News.CONTRADICTION: (Rule.ALARM,           Rule.ALARM,       Rule.ALARM,          Rule.CONTRADICT, Rule.ALARM,   Rule.ALARM),
}
# fmt: on

TABLE: Final[Mapping[News, Mapping[Phase, Rule]]] = {news: dict(zip(Phase, rules, strict=True)) for news, rules in _LINES.items()}
