"""Writes an answer down as a Markdown report with citations."""

from __future__ import annotations

from maypole.bus import Agent, Context
from maypole.schemas.report import ReportPublished
from maypole.schemas.research import AnalysisReady
from maypole.services.artefacts import Artefacts
from maypole.services.report.markdown import Report, title_of, write

report = Agent("report")


@report.on(AnalysisReady)
def compose(analysis: AnalysisReady, context: Context) -> ReportPublished:
    artefacts = Artefacts(context.home)
    made = artefacts.get(context.step_id)
    if made is None:
        made = artefacts.keep(context.step_id, context.flow_id, _written(analysis, context).model_dump_json())
    return ReportPublished.model_validate_json(made)


@compose.undo
def delete_report(analysis: AnalysisReady, context: Context) -> None:
    Artefacts(context.home).remove(context.step_id)


@compose.verify
def report_is_gone(analysis: AnalysisReady, context: Context) -> bool:
    return Artefacts(context.home).get(context.step_id) is None


def _written(analysis: AnalysisReady, context: Context) -> ReportPublished:
    return ReportPublished(
        question=analysis.question,
        title=title_of(analysis.question),
        markdown=write(Report(analysis.question, analysis.sentences, analysis.confidence, context.triggered_at, context.flow_id)),
        sources=analysis.sources,
        confidence=analysis.confidence,
        deliver_to=analysis.deliver_to,
    )
