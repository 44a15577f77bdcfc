from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from maypole.schemas.errors import ContractRefused
from maypole.schemas.research import Finding, ResearchCompleted
from maypole.services.analysis import analysis
from maypole.services.analysis.agent import analyse, discard_draft, draft_is_gone
from maypole.services.artefacts import Artefacts
from tests.unit.services.steps import context


def research(confidence: float) -> ResearchCompleted:
    finding = Finding(passage="A bee dances. It shows where the nectar is.", source="bees.md", section="Bees", score=3.0)
    return ResearchCompleted(
        question="Why does a bee dance?",
        findings=(finding,),
        confidence=confidence,
        sources=("bees.md",),
        researched_at=datetime(2026, 3, 1, tzinfo=UTC),
        deliver_to="/tmp/out",
    )


def test_every_sentence_of_the_answer_carries_its_source(tmp_path: Path) -> None:
    ready = analyse(research(0.9), context(tmp_path))
    assert ready.sentences
    assert all(sentence.sources == ("Bees (bees.md)",) for sentence in ready.sentences)
    assert (ready.sources, ready.confidence, ready.deliver_to) == (("Bees (bees.md)",), 0.9, "/tmp/out")


def test_the_border_lets_0_70_pass_and_refuses_0_69_with_field_value_and_rule() -> None:
    (subscription,) = analysis.subscriptions
    (requirement,) = subscription.triggers[0].requires
    requirement.check(research(0.70))
    with pytest.raises(ContractRefused) as refused:
        requirement.check(research(0.69))
    assert (refused.value.field, refused.value.value, refused.value.rule) == ("confidence", 0.69, "confidence >= 0.7")


def test_a_repeated_step_is_answered_from_what_it_kept(tmp_path: Path) -> None:
    first = analyse(research(0.9), context(tmp_path))
    assert analyse(research(0.8), context(tmp_path, attempt=2)) == first


def test_a_draft_that_was_discarded_is_gone_and_discarding_it_again_is_nothing(tmp_path: Path) -> None:
    analyse(research(0.9), context(tmp_path))
    analyse(research(0.8), context(tmp_path, step="step-2"))
    assert not draft_is_gone(research(0.9), context(tmp_path))
    for _ in range(2):
        discard_draft(research(0.9), context(tmp_path))
    assert draft_is_gone(research(0.9), context(tmp_path))
    assert Artefacts(tmp_path).get("step-1") is None
    assert Artefacts(tmp_path).get("step-2") is not None, "another step's draft stays"
