"""select-views: of every vase the one view that shows it best."""

from __future__ import annotations

import csv
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from vasevqa import spec
from vasevqa.errors import ConfigError, DataError


class Params(spec.Params):
    """What decides which view is best."""

    name_pattern: str | None = Field(
        None,
        description=(
            "regular expression for a file's stem with the groups vase and view; unset: <UUID>_<view>_ac<number>"
        ),
    )
    exact_decode: bool = Field(False, description="where images must be scored here: decode JPEGs in full")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="where images must be scored here: auto is bf16 where the hardware computes in it"
    )


class Options(spec.Options):
    """How it runs."""

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N; only used where images must be scored here")
    batch_size: int = Field(32, ge=1, description="images a batch")
    workers: int = Field(0, ge=0, description="decoding threads; 0: as many as cores")
    model_cache_dir: str | None = Field(None, description="where models from a hub are kept")


@dataclass(frozen=True)
class View:
    """One accepted image: its vase (its own name where the name doesn't match the pattern), view and similarity."""

    vase: str
    view: str
    name: str
    path: Path
    similarity: float
    matched: bool


def run(
    params: Params, options: Options, inputs: Mapping[str, Path], output: spec.Output, progress: spec.Progress
) -> None:
    """Group by vase, pick, place in best_views/, and say what was lost."""
    from vasevqa.curation import file_names
    from vasevqa.curation.reports import read_report, remove_ours

    pattern = file_names.name_pattern(params.name_pattern)
    base = inputs["images"]
    images = base / "accepted" if (base / "accepted").is_dir() else base
    report_folder = images.parent if images.name == "accepted" else images
    report = read_report(report_folder / "filtering_report.json")
    scored, quarantined, seconds, reused = _similarities(images, report, (params, options, inputs), progress)
    views: dict[str, list[View]] = defaultdict(list)
    for name, path, similarity in scored:
        parsed = file_names.parse_name(name, pattern)
        view = (
            View(parsed.vase, parsed.view, name, path, similarity, True)
            if parsed
            else View(name, "", name, path, similarity, False)
        )
        views[view.vase].append(view)
    for group in views.values():
        group.sort(key=lambda view: (-view.similarity, view.name))

    began = time.perf_counter()
    before = {row["best"] for row in read_report(output.root / "best_views_report.json").get("vases", [])}
    progress.start("placing", len(views), "vases")
    for vase in sorted(views):
        best = views[vase][0]
        output.place(best.path, f"best_views/{best.name}")
        progress.advance()
    chosen = {group[0].name for group in views.values()}
    rivals = {view.name for group in views.values() for view in group[1:]}
    for name in before & rivals - chosen:  # an earlier call's choice of a vase that has a better view now
        remove_ours(output, f"best_views/{name}")
    rejected = [row for row in report.get("images", []) if not row["accepted"]]
    lost = _lost(set(views), rejected, report.get("quarantined", []), inputs.get("classified"), pattern)
    rows = [_vase_row(vase, views[vase]) for vase in sorted(views)]
    unmatched = sorted(view.name for group in views.values() for view in group if not view.matched)
    output.write_json(
        "best_views_report.json",
        {
            "scores_from": "clip-filter" if reused else "this step",
            "vases": rows,
            "unmatched": unmatched,
            "lost": lost,
            "quarantined": quarantined,
        },
    )
    output.write_json("filtering_stats.json", _stats(views, lost, unmatched))
    output.write_text(
        "lost_vases.csv",
        "vase,lost_at,best,score\n"
        + "".join(f"{row['vase']},{row['lost_at']},{_quoted(row['best'])},{row['score']}\n" for row in lost),
    )
    progress.speed({**seconds, "disk": time.perf_counter() - began}, len(scored))
    count = sum(len(group) for group in views.values())
    progress.summary(
        f"best views of {len(views)} vases out of {count} images; {len(lost)} vases lost all their views earlier,"
        f" {len(unmatched)} names match no pattern",
        vases=len(views),
        images=count,
        lost=len(lost),
        unmatched=len(unmatched),
    )


Scored = list[tuple[str, Path, float]]


def _similarities(
    images: Path, report: dict[str, Any], call: tuple[Params, Options, Mapping[str, Path]], progress: spec.Progress
) -> tuple[Scored, list[dict[str, str]], dict[str, float], bool]:
    """(name, path, similarity to the high prompts) of every image: from clip-filter's report where it has them, else
    computed.
    """
    from vasevqa.curation.images import find_images, quarantine_rows

    found = list(find_images(images))
    if not found:
        raise DataError(
            f"There is no image in {images}; check --input-dir, or whether an earlier step rejected everything."
        )
    known = {row["name"]: float(row["high_similarity"]) for row in report.get("images", []) if row.get("accepted")}
    scored = [(item.name, item.path, known[item.name]) for item in found if item.name in known and not item.problem]
    missing = [item for item in found if item.name not in known or item.problem]
    if not missing:
        return scored, [], {"decode": 0.0, "model": 0.0}, True
    params, options, inputs = call
    if "clip_model" not in inputs:
        raise ConfigError(
            f"{len(missing)} images in {images} were not scored by clip-filter; give --clip-model to score them here."
        )
    from vasevqa.curation import clip, scoring
    from vasevqa.curation.devices import resolve_device
    from vasevqa.curation.loader import Loader

    prompts = (
        scoring.Prompts(*(tuple(report["prompts"][side]) for side in ("high", "low")))
        if "prompts" in report
        else scoring.Prompts()
    )
    model = clip.load_clip(
        inputs["clip_model"], resolve_device(options.device), params.precision, options.model_cache_dir
    )
    if known and report.get("model", {}).get("digest") != model.digest:
        raise ConfigError(
            f"clip-filter scored {images} with another CLIP model than {inputs['clip_model']}; use the same one, or a"
            " folder of images without its report."
        )
    high, low = model.encode_texts(list(prompts.high)), model.encode_texts(list(prompts.low))
    loader = Loader(
        missing,
        model.preprocess,
        options.batch_size,
        options.workers,
        None if params.exact_decode else model.preprocess.size,
    )
    progress.start("scoring", len(missing))
    seconds = 0.0
    for batch in loader:
        began = time.perf_counter()
        similar = scoring.score(model.encode_images(batch.pixels), high, low).high
        seconds += time.perf_counter() - began
        scored += [
            (name, path, float(value)) for name, path, value in zip(batch.names, batch.paths, similar, strict=True)
        ]
        progress.advance(len(batch.names))
    if not scored:
        raise DataError(
            f"None of the images in {images} can be read (first: {loader.quarantined[0].reason}); check the files."
        )
    return scored, quarantine_rows(loader.quarantined), {"decode": loader.seconds["wait"], "model": seconds}, False


def _vase_row(vase: str, group: list[View]) -> dict[str, Any]:
    best = group[0]
    runner_up = group[1] if len(group) > 1 else None
    margin = None if runner_up is None else best.similarity - runner_up.similarity
    if runner_up is None:
        reason = "the only view" if best.matched else "the name matches no pattern: kept as a vase of its own"
    elif margin == 0:
        reason = "equal similarity: the first by name"
    else:
        reason = "the highest similarity to descriptions of a complete vase"
    return {
        "vase": vase,
        "best": best.name,
        "view": best.view,
        "similarity": best.similarity,
        "runner_up": runner_up.name if runner_up else None,
        "margin": margin,
        "reason": reason,
        "views": [{"name": view.name, "view": view.view, "similarity": view.similarity} for view in group],
    }


def _lost(
    kept: set[str],
    rejected: list[dict[str, Any]],
    unreadable: list[dict[str, str]],
    classified: Path | None,
    pattern: Any,
) -> list[dict[str, Any]]:
    """Vases without an accepted view, each with the step that lost them last and their best image there."""
    from vasevqa.curation.file_names import parse_name
    from vasevqa.curation.reports import read_report

    rows: list[tuple[str, str, float | None]] = [("clip-filter", row["name"], float(row["score"])) for row in rejected]
    unread = list(unreadable)
    if classified is not None:
        if (classified / "predictions.csv").is_file():
            with open(classified / "predictions.csv", newline="", encoding="utf-8") as stream:
                rows += [
                    ("classify", row["path"], float(row["probability"]))
                    for row in csv.DictReader(stream)
                    if row["class"] == "0" and row["probability"]
                ]
        unread += read_report(classified / "quarantined.json").get("quarantined", [])
    rows += [("unreadable", row["name"], None) for row in unread]
    lost: dict[str, dict[str, Any]] = {}
    order = {"clip-filter": 0, "classify": 1, "unreadable": 2}  # the step that a vase reached last names its loss
    for where, name, value in rows:
        parsed = parse_name(name, pattern)
        if parsed is None or parsed.vase in kept:
            continue
        entry = {"vase": parsed.vase, "lost_at": where, "best": name, "score": value}
        old = lost.get(parsed.vase)
        better = (
            old is not None and where == old["lost_at"] and (-(value or 0), name) < (-(old["score"] or 0), old["best"])
        )
        if old is None or order[where] < order[old["lost_at"]] or better:
            lost[parsed.vase] = entry
    return [lost[vase] for vase in sorted(lost)]


def _stats(views: dict[str, list[View]], lost: list[dict[str, Any]], unmatched: list[str]) -> dict[str, Any]:
    from vasevqa.curation.scoring import statistics

    images = sum(len(group) for group in views.values())
    return {
        "vases": len(views),
        "images": images,
        "reduction": 1 - len(views) / images,
        "lost_vases": len(lost),
        "unmatched": len(unmatched),
        "views_per_vase": dict(
            sorted(Counter(str(len(group)) for group in views.values()).items(), key=lambda item: int(item[0]))
        ),
        "view_distribution": dict(Counter(group[0].view for group in views.values() if group[0].matched).most_common()),
        "best_similarity": statistics([group[0].similarity for group in views.values()]),
        "all_similarity": statistics([view.similarity for group in views.values() for view in group]),
    }


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n') else text


STAGE = spec.Stage(
    "select-views",
    2,
    Params,
    Options,
    (
        spec.Input("images", "--input-dir", "clip-filter's output, its accepted/ folder, or any folder of photographs"),
        spec.Input(
            "clip_model",
            "--clip-model",
            "a CLIP model, needed where images weren't scored by clip-filter",
            required=False,
            hub=True,
        ),
        spec.Input(
            "classified", "--classified-dir", "classify's output, to tell which vases were lost there", required=False
        ),
    ),
    "Picks the best view of every vase.",
    spec.Resources(cpus=2, memory="4Gi"),
    sources=(
        "vasevqa.curation.images",
        "vasevqa.curation.file_names",
        "vasevqa.curation.clip",
        "vasevqa.curation.scoring",
        "vasevqa.curation.reports",
    ),
    run=run,
)
