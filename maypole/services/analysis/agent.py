"""Drafts an answer out of research that can be relied on; what is less sure never gets past its border."""

from __future__ import annotations

from maypole.bus import Agent, Context, at_least
from maypole.schemas.research import AnalysisReady, ResearchCompleted
from maypole.services.analysis.drafting import draft, sources
from maypole.services.artefacts import Artefacts

analysis = Agent("analysis")


@analysis.on(ResearchCompleted, require=at_least("confidence", 0.7))
def analyse(research: ResearchCompleted, context: Context) -> AnalysisReady:
    artefacts = Artefacts(context.home)
    made = artefacts.get(context.step_id)
    if made is None:
        made = artefacts.keep(context.step_id, context.flow_id, answer(research).model_dump_json())
    return AnalysisReady.model_validate_json(made)


@analyse.undo
def discard_draft(research: ResearchCompleted, context: Context) -> None:
    Artefacts(context.home).remove(context.step_id)


@analyse.verify
def draft_is_gone(research: ResearchCompleted, context: Context) -> bool:
    return Artefacts(context.home).get(context.step_id) is None


def answer(research: ResearchCompleted) -> AnalysisReady:
    sentences = draft(research.question, research.findings)
    return AnalysisReady(
        question=research.question,
        sentences=sentences,
        sources=sources(sentences),
        confidence=research.confidence,
        deliver_to=research.deliver_to,
    )
