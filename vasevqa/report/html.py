"""Write the report of a run as one HTML file that can be read offline.

The report begins with the verdict, a short summary of the run. The photographs, the training, the evaluation, the steps
and the recipe follow.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vasevqa import files
from vasevqa.artifacts.volume import Volume
from vasevqa.confidential import Masker
from vasevqa.curation.reports import FilteringReport
from vasevqa.evaluation.figures import Evaluation
from vasevqa.pipeline.calibrated import Calibration
from vasevqa.pipeline.events import Event
from vasevqa.pipeline.history import StepHistory, read_history
from vasevqa.pipeline.runs import Run
from vasevqa.report import audit, quality, rewards, training
from vasevqa.report.answers import answer_cards
from vasevqa.report.checks import data_quality
from vasevqa.report.costs import Cost, costs
from vasevqa.report.evaluation import evaluated, evaluation_of
from vasevqa.report.funnel import Level, funnel, remarks
from vasevqa.report.mistakes import mistakes
from vasevqa.report.pictures import Thumbnails
from vasevqa.report.provenance import Record, provenance, read_records
from vasevqa.report.recipes import Told
from vasevqa.report.sources import Sources
from vasevqa.report.threshold import Trial, trial
from vasevqa.report.timeline import timeline
from vasevqa.report.verdict import Results, Verdict, verdict
from vasevqa.report.views import best_views
from vasevqa.statistics import FEWEST
from vasevqa.text import amount, percent, visible


def write_report(folder: Path, volume: Volume) -> Path:
    """Write `report.html` of the run in `folder` and return its path.

    The run may be in any state: the report shows the results that exist.
    """
    return write_with_verdict(folder, volume)[0]


def write_with_verdict(folder: Path, volume: Volume) -> tuple[Path, Verdict]:
    """Write `report.html` of the run in `folder`. Return its path, and the verdict at its beginning."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vasevqa.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["percent"] = percent
    script = environment.get_template("script.js").render()
    run = Run(volume, folder.name)
    events = list(run.events.read())
    history = read_history(events)
    artifacts = run.artifacts()
    thumbnails = Thumbnails(volume.root)
    sources = Sources({name: artifacts[name] for name in history if name in artifacts}, thumbnails)
    told = Told.by(run.recipe)
    decided_about = audit.photographs(sources, told)
    accepted = audit.acceptance(sources, told, decided_about)
    vases = {one.file.name: one.vase for one in decided_about.get("clip-filter", ())}
    values = content(run, events, history, sources, told)
    page = environment.get_template("report.html.j2").render(
        values,
        acceptance=accepted,
        trial=_trial(run, sources, vases),
        fewest=FEWEST,
        script=script,
        script_digest=script_digest(script),
    )
    thumbnails.keep()
    target = folder / "report.html"
    if accepted.overall:
        files.write_json(folder / accepted.FILE, accepted.model_dump(mode="json", by_alias=True))
    site = run.backend_settings.get("cluster")
    mask = Masker(os.environ, site.get("secrets", ()) if isinstance(site, dict) else ())
    files.write_text(target, visible(mask(page)))
    found = values["verdict"]
    assert isinstance(found, Verdict)
    return target, found


def script_digest(script: str) -> str:
    """Return the digest of the report's script. The page's security policy allows only a script with this digest."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def content(
    run: Run, events: Sequence[Event], history: Mapping[str, StepHistory], sources: Sources, told: Told
) -> dict[str, object]:
    """Return the values for the template, from the event log and from the artifacts of the run."""
    artifacts = sources.artifacts
    records = read_records(artifacts)
    steps = timeline(events, history, records)
    levels = funnel(sources)
    filtered = sources.filtered or FilteringReport()
    rows, threshold = filtered.images, filtered.threshold
    logged = training.logs(artifacts)
    combined = rewards.combined(logged.get("grpo", []), records.get("grpo"))
    answers = rewards.completions(artifacts, combined, told.questions)
    evaluation = evaluation_of(artifacts)
    return {
        "run": run.name,
        "name": "-".join(run.name.split("-")[2:-1]) or run.name,
        "verdict": verdict(run, events, history, _results(levels, sources, evaluation, records), steps.active),
        "funnel": levels,
        "views": best_views(sources),
        "checks": data_quality(sources),
        "dataset": sources.dataset,
        "remarks": remarks(sources.dataset),
        "provenance": provenance(records),
        "totals": _totals(costs(history, records)),
        "timeline": steps,
        "histogram": quality.histogram(rows, threshold, filtered.recommendations) if threshold is not None else None,
        "choices": quality.choices(filtered),
        "threshold_source": filtered.threshold_source,
        "sheets": quality.contact_sheets(sources, rows, threshold) if rows and threshold is not None else [],
        "quarantined": quality.quarantined(sources),
        "passed_over": sources.passed_over,
        "curves": training.curves(artifacts, logged, answers, combined),
        "reward": combined.formula,
        "left_out": training.left_out(artifacts, sources.dataset),
        "completions": rewards.some(answers),
        "too_large": rewards.too_large(artifacts),
        "attribute_rewards": rewards.by_attribute(answers),
        "merges": training.merges(artifacts),
        "evaluation": evaluated(evaluation),
        "answers": answer_cards(sources, evaluation),
        "mistakes": mistakes(evaluation),
        "recipe": run.text() or "",
    }


def _trial(run: Run, sources: Sources, vases: Mapping[str, str]) -> Trial | None:
    filtered = sources.filtered
    if filtered is None or filtered.threshold is None:
        return None
    labelled = Calibration.read(run.calibration("clip-filter"))
    return trial(filtered.images, filtered.threshold, vases, labelled)


def _results(
    levels: Sequence[Level], sources: Sources, evaluation: Evaluation, records: Mapping[str, Record]
) -> Results:
    filtered, views = sources.filtered, sources.views
    return Results(
        photographs=levels[0].count if levels else None,
        accepted=sum(row.accepted for row in filtered.images) if filtered else None,
        vases=len(views.vases) if views else None,
        lost=len(views.lost) if views else None,
        evaluation=evaluation,
        threshold=quality.other_threshold(filtered) if filtered else None,
        seeds={step: record.seed for step, record in records.items() if record.seed is not None},
    )


@dataclass(frozen=True)
class Total:
    """The amount of one resource that all steps of the run used."""

    value: str
    label: str


def _totals(spent: Mapping[str, Cost]) -> list[Total]:
    used = (
        (sum(cost.gpu_hours for cost in spent.values()), "GPU-hours used"),
        (sum(cost.core_hours for cost in spent.values()), "core-hours used"),
        (sum(cost.memory_hours for cost in spent.values()), "GiB-hours of memory used"),
    )
    return [Total(amount(hours), label) for hours, label in used if hours]
