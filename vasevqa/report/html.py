"""Write the report of a run as one HTML file. The file can be read without a network.

The report begins with the verdict. The photographs, the training, the evaluation, the steps and the recipe follow.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vasevqa import files
from vasevqa.artifacts.volume import Volume
from vasevqa.curation.reports import FilteringReport
from vasevqa.evaluation.figures import Evaluation
from vasevqa.pipeline.history import read_history
from vasevqa.pipeline.runs import Run
from vasevqa.report import audit, quality, training
from vasevqa.report.checks import data_quality
from vasevqa.report.costs import Cost, costs
from vasevqa.report.evaluation import evaluated, evaluation_of
from vasevqa.report.funnel import Level, Sources, funnel
from vasevqa.report.mistakes import mistakes
from vasevqa.report.provenance import provenance
from vasevqa.report.timeline import timeline
from vasevqa.report.verdict import Results, verdict
from vasevqa.report.views import best_views


def write_report(folder: Path, volume: Volume) -> Path:
    """Write `report.html` of the run in `folder` and return its path.

    The run may be in any state: the report shows the results that exist.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vasevqa.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    script = environment.get_template("script.js").render()
    run = Run(volume, folder.name)
    accepted = audit.acceptance(run.artifacts(), run.recipe)
    page = environment.get_template("report.html.j2").render(
        content(run), acceptance=accepted, script=script, script_digest=script_digest(script)
    )
    target = folder / "report.html"
    if accepted.overall:
        files.write_json(folder / accepted.FILE, accepted.model_dump(mode="json", by_alias=True))
    files.write_text(target, page)
    return target


def script_digest(script: str) -> str:
    """Return the digest by which the page's policy allows this script and no other, whatever the run's texts hold."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def content(run: Run) -> dict[str, object]:
    """Return the values for the template, from the event log and from the artifacts of the run."""
    events = list(run.events.read())
    artifacts = run.artifacts()
    history = read_history(events)
    ordered = {name: artifacts[name] for name in history if name in artifacts}
    sources = Sources.read(ordered)
    levels = funnel(sources)
    filtered = sources.filtered or FilteringReport()
    rows, threshold = filtered.images, filtered.threshold
    answers = training.completions(ordered)
    evaluation = evaluation_of(ordered)
    return {
        "run": run.name,
        "name": "-".join(run.name.split("-")[2:-1]) or run.name,
        "verdict": verdict(run, events, history, _results(levels, sources, evaluation)),
        "funnel": levels,
        "views": best_views(sources),
        "checks": data_quality(sources),
        "dataset": sources.dataset,
        "provenance": provenance(ordered),
        "totals": _totals(costs(history)),
        "timeline": timeline(events, history, artifacts),
        "histogram": quality.histogram(rows, threshold, filtered.recommendations) if threshold is not None else None,
        "choices": quality.choices(filtered),
        "threshold_source": filtered.threshold_source,
        "sheets": quality.contact_sheets(ordered["clip-filter"], rows, threshold)
        if rows and threshold is not None
        else [],
        "lost": sources.views.lost if sources.views else [],
        "quarantined": quality.quarantined(ordered),
        "curves": training.curves(ordered, answers),
        "left_out": training.left_out(ordered),
        "completions": training.some(answers),
        "attribute_rewards": training.by_attribute(answers),
        "merges": training.merges(ordered),
        "evaluation": evaluated(evaluation),
        "mistakes": mistakes(evaluation),
        "recipe": run.recipe.read_text(encoding="utf-8") if run.recipe.is_file() else "",
    }


def _results(levels: Sequence[Level], sources: Sources, evaluation: Evaluation) -> Results:
    filtered, views = sources.filtered, sources.views
    return Results(
        photographs=levels[0].count if levels else None,
        accepted=sum(row.accepted for row in filtered.images) if filtered else None,
        vases=len(views.vases) if views else None,
        lost=len(views.lost) if views else None,
        evaluation=evaluation,
    )


@dataclass(frozen=True)
class Total:
    """What all steps of the run used of one resource."""

    value: str
    label: str


def _totals(spent: Mapping[str, Cost]) -> list[Total]:
    used = (
        (sum(cost.gpu_hours for cost in spent.values()), "GPU-hours used"),
        (sum(cost.core_hours for cost in spent.values()), "core-hours used"),
        (sum(cost.memory_hours for cost in spent.values()), "GiB-hours of memory used"),
    )
    return [Total(f"{hours:.2g}", label) for hours, label in used if hours]
