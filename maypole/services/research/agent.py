"""Searches a corpus for passages that answer a question. The corpus is named by `MAYPOLE_CORPUS`, read once at the first question."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from maypole.bus import Agent, Context
from maypole.schemas.research import Finding, ResearchCompleted, ResearchInconclusive, ResearchRequested
from maypole.services.artefacts import Artefacts
from maypole.services.research.confidence import Verdict, judge
from maypole.services.research.corpus import Corpus, corpus_at
from maypole.services.research.retrieval import index_of
from maypole.settings import read_settings

research = Agent("research")


# A plain function: the bus runs it in a thread, because it reads files and may build an index first.
@research.on(ResearchRequested)
def search(request: ResearchRequested, context: Context) -> ResearchCompleted | ResearchInconclusive:
    artefacts = Artefacts(context.home)
    made = artefacts.get(context.step_id)
    if made is None:
        outcome = _outcome(request, _searched(request.question, context), context)
        made = artefacts.keep(context.step_id, context.flow_id, f"{outcome.event_type}\n{outcome.model_dump_json()}")
    return _restored(made)


@search.undo
def forget_findings(request: ResearchRequested, context: Context) -> None:
    """The index of the corpus stays: it belongs to no flow."""
    Artefacts(context.home).remove(context.step_id)


@search.verify
def findings_are_forgotten(request: ResearchRequested, context: Context) -> bool:
    return Artefacts(context.home).get(context.step_id) is None


def _searched(question: str, context: Context) -> Verdict:
    corpus = _corpus()
    index, left_out = index_of(corpus, context.home)
    for line in left_out:
        context.logger.warning("research.left_out %s: %s", corpus.name, line)
    return judge(index.search(question))


@cache
def _corpus() -> Corpus:
    return corpus_at(read_settings(os.environ, Path.cwd()).corpus)


def _outcome(request: ResearchRequested, verdict: Verdict, context: Context) -> ResearchCompleted | ResearchInconclusive:
    if not verdict.findings:
        return ResearchInconclusive(
            question=request.question, reason=verdict.reason, best_confidence=verdict.confidence, researched_at=context.triggered_at
        )
    findings = tuple(
        Finding(passage=match.passage.text, source=match.passage.source, section=match.passage.title, score=round(match.score, 4))
        for match in verdict.findings
    )
    return ResearchCompleted(
        question=request.question,
        findings=findings,
        confidence=verdict.confidence,
        sources=tuple(dict.fromkeys(finding.source for finding in findings)),
        researched_at=context.triggered_at,
        deliver_to=request.deliver_to,
    )


def _restored(made: str) -> ResearchCompleted | ResearchInconclusive:
    event_type, _, body = made.partition("\n")
    event_class = ResearchCompleted if event_type == ResearchCompleted.event_type else ResearchInconclusive
    return event_class.model_validate_json(body)
