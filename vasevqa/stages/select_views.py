"""select-views: of every vase the one view that shows it best."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from vasevqa import spec
from vasevqa.errors import ConfigError, DataError

if TYPE_CHECKING:
    from vasevqa.curation.clip import ClipModel
    from vasevqa.curation.images import ImageFile
    from vasevqa.curation.reports import FilteringReport, LostVase, QuarantinedFile
    from vasevqa.curation.scoring import Prompts
    from vasevqa.curation.views import View


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
    model_cache_dir: str | None = Field(None, description="cache folder for models from a hub")


@dataclass(frozen=True)
class _Scored:
    """Every readable image as (name, path, similarity to the high prompts), and the source of the similarities."""

    images: list[tuple[str, Path, float]]
    quarantined: list[QuarantinedFile]
    seconds: dict[str, float]
    reused: bool = False  # all from clip-filter's report


def run(call: spec.StageCall[Params, Options]) -> None:
    """Group by vase, pick, place in best_views/, and say what was lost."""
    from vasevqa.curation import file_names, views
    from vasevqa.curation.reports import FilteringReport

    pattern = file_names.name_pattern(call.params.name_pattern)
    base = call.inputs["images"]
    images = base / "accepted" if (base / "accepted").is_dir() else base
    report_folder = images.parent if images.name == "accepted" else images
    report = FilteringReport.read(report_folder)
    scored = _similarities(images, report, call.params, call.options, call.inputs, call.progress)
    vases = views.group_views(scored.images, pattern)

    began = time.perf_counter()
    _place(vases, call.output, call.progress)
    lost = views.lost_vases(set(vases), report, call.inputs.get("classified"), pattern)
    unmatched = sorted(view.name for group in vases.values() for view in group if not view.matched)
    _write(vases, scored, lost, unmatched, call.output)
    call.progress.speed({**scored.seconds, "disk": time.perf_counter() - began}, len(scored.images))
    count = sum(len(group) for group in vases.values())
    call.progress.summary(
        f"best views of {len(vases)} vases out of {count} images; {len(lost)} vases lost all their views earlier,"
        f" {len(unmatched)} names match no pattern",
        vases=len(vases),
        images=count,
        lost=len(lost),
        unmatched=len(unmatched),
    )


def _similarities(
    images: Path,
    report: FilteringReport | None,
    params: Params,
    options: Options,
    inputs: Mapping[str, Path],
    progress: spec.Progress,
) -> _Scored:
    """Return the images' similarities: from clip-filter's report if it has all of them, else computed here."""
    from vasevqa.curation.images import find_images

    found = list(find_images(images))
    if not found:
        raise DataError(
            f"There is no image in {images}; check --input-dir, or whether an earlier step rejected everything."
        )
    known = {row.name: row.high_similarity for row in (report.images if report else []) if row.accepted}
    scored = [(item.name, item.path, known[item.name]) for item in found if item.name in known and not item.problem]
    missing = [item for item in found if item.name not in known or item.problem]
    if not missing:
        return _Scored(scored, [], {"decode": 0.0, "model": 0.0}, reused=True)
    if "clip_model" not in inputs:
        raise ConfigError(
            f"{len(missing)} images in {images} were not scored by clip-filter; give --clip-model to score them here."
        )
    from vasevqa.curation import clip, scoring
    from vasevqa.curation.devices import resolve_device

    given = report.prompts if report else None
    prompts = scoring.Prompts(tuple(given.high), tuple(given.low)) if given else scoring.Prompts()
    model = clip.load_clip(
        inputs["clip_model"], resolve_device(options.device), params.precision, options.model_cache_dir
    )
    if known and report and report.model.digest != model.digest:
        raise ConfigError(
            f"clip-filter scored {images} with another CLIP model than {inputs['clip_model']}; use the same one, or a"
            " folder of images without its report."
        )
    fresh = _score(missing, model, prompts, params, options, progress)
    if not scored and not fresh.images:
        raise DataError(
            f"None of the images in {images} can be read (first: {fresh.quarantined[0].reason}); check the files."
        )
    return _Scored([*scored, *fresh.images], fresh.quarantined, fresh.seconds)


def _score(
    missing: list[ImageFile],
    model: ClipModel,
    prompts: Prompts,
    params: Params,
    options: Options,
    progress: spec.Progress,
) -> _Scored:
    from vasevqa.curation import scoring
    from vasevqa.curation.loader import Loader
    from vasevqa.curation.reports import quarantined_files

    high, low = model.encode_texts(list(prompts.high)), model.encode_texts(list(prompts.low))
    loader = Loader(
        missing,
        model.preprocess,
        options.batch_size,
        options.workers,
        None if params.exact_decode else model.preprocess.size,
    )
    progress.start("scoring", len(missing))
    scored: list[tuple[str, Path, float]] = []
    seconds = 0.0
    for batch in loader:
        began = time.perf_counter()
        similar = scoring.score(model.encode_images(batch.pixels), high, low).high
        seconds += time.perf_counter() - began
        scored += [
            (name, path, float(value)) for name, path, value in zip(batch.names, batch.paths, similar, strict=True)
        ]
        progress.advance(len(batch.names))
    unreadable = quarantined_files(loader.quarantined)
    return _Scored(scored, unreadable, {"decode": loader.seconds["wait"], "model": seconds})


def _place(vases: dict[str, list[View]], output: spec.Output, progress: spec.Progress) -> None:
    """Place the best view of every vase, and remove what an earlier call had chosen instead."""
    from vasevqa.curation.reports import BestViewsReport, remove_ours

    earlier = BestViewsReport.read(output.root)
    before = {row.best for row in earlier.vases} if earlier else set()
    progress.start("placing", len(vases), "vases")
    for vase in sorted(vases):
        best = vases[vase][0]
        output.place(best.path, f"best_views/{best.name}")
        progress.advance()
    chosen = {group[0].name for group in vases.values()}
    rivals = {view.name for group in vases.values() for view in group[1:]}
    for name in before & rivals - chosen:  # an earlier call's choice of a vase that has a better view now
        remove_ours(output, f"best_views/{name}")


def _write(
    vases: dict[str, list[View]],
    scored: _Scored,
    lost: list[LostVase],
    unmatched: list[str],
    output: spec.Output,
) -> None:
    from vasevqa.curation.reports import BestViewsReport
    from vasevqa.curation.views import choose_view, view_statistics

    BestViewsReport(
        scores_from="clip-filter" if scored.reused else "this step",
        vases=[choose_view(vase, vases[vase]) for vase in sorted(vases)],
        unmatched=unmatched,
        lost=lost,
        quarantined=scored.quarantined,
    ).write(output)
    view_statistics(vases, lost, unmatched).write(output)
    rows = [f"{row.vase},{row.lost_at},{_quoted(row.best)},{row.score}\n" for row in lost]
    output.write_text("lost_vases.csv", "".join(["vase,lost_at,best,score\n", *rows]))


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
        "vasevqa.curation.views",
    ),
    run=run,
)
