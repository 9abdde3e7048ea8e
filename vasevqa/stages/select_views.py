"""select-views: choose the best view of each vase."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from vasevqa import files, spec
from vasevqa.curation.file_names import DESCRIPTION, UNMATCHED_DESCRIPTION, NamePattern, check_patterns
from vasevqa.errors import ConfigError, DataError
from vasevqa.folders import PassedOver

if TYPE_CHECKING:
    from vasevqa.curation.clip import ClipModel
    from vasevqa.curation.file_names import Naming
    from vasevqa.curation.images import ImageFile
    from vasevqa.curation.reports import FilteringReport, LostVase, QuarantinedFile
    from vasevqa.curation.scoring import Prompts
    from vasevqa.curation.views import View


class Params(spec.Params):
    """The parameters that decide which view is the best."""

    name_pattern: NamePattern = Field(None, description=DESCRIPTION)
    unmatched: Literal["error", "own-vase"] = Field("error", description=UNMATCHED_DESCRIPTION)
    exact_decode: bool = Field(False, description="decode JPEGs in full (if this stage must score images)")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="precision (if this stage must score images); auto is bf16 if the hardware supports it"
    )


class Options(spec.Options):
    """The options that don't change which view is the best."""

    device: spec.Device = Field(
        "auto", description="auto, cpu, cuda or cuda:N; only used if this stage must score images"
    )
    batch_size: int = Field(32, ge=1, description="images per batch")
    workers: int = Field(0, ge=0, description="number of decoding threads; 0: one per core")
    model_cache_dir: str | None = Field(None, description="cache folder for models from a hub")


@dataclass(frozen=True)
class _Scored:
    """The similarities of the images. `images` holds (name, path, similarity to the prompts of high quality).

    `quarantined` holds the unreadable images. `seconds` holds the seconds spent on each kind of work.
    """

    images: list[tuple[str, Path, float]]
    quarantined: list[QuarantinedFile]
    seconds: dict[str, float]
    reused: bool = False  # all similarities come from clip-filter's report
    others: PassedOver = field(default_factory=PassedOver)


def run(call: spec.StageCall[Params, Options]) -> None:
    """Group the images by vase, copy or link each vase's best view into best_views/, and report the lost vases."""
    from vasevqa.curation import naming, views
    from vasevqa.curation.images import find_images
    from vasevqa.curation.reports import FilteringReport

    base = call.inputs["images"]
    images = base / "accepted" if (base / "accepted").is_dir() else base
    # A launcher's step reads nothing outside the input folder, because the artifact's key covers only this folder.
    above = images == base and base.name == "accepted" and call.output.standalone
    report = FilteringReport.read(base.parent if above else base)
    others = PassedOver()
    photographs = list(find_images(images, others=others))
    if not photographs:
        raise DataError(
            f"There is no image in {images}{others.hint()}; check --input-dir, and whether an earlier step"
            " rejected all images."
        )
    # The pattern must also match the names of the rejected photographs. Otherwise a rejection could change how the
    # names of the remaining photographs are read.
    lost_names = [name for _, name, _ in views.losses(report, call.inputs.get("classified"))]
    named = naming.naming_of(call.params.name_pattern, [*(item.name for item in photographs), *lost_names])
    if call.params.unmatched == "error":
        naming.refuse_unmatched(photographs, named)
    scored = replace(_similarities(images, photographs, report, call), others=others)
    vases = views.group_views(scored.images, named)

    began = time.perf_counter()
    _place(vases, call.output, call.progress)
    lost = views.lost_vases(set(vases), report, call.inputs.get("classified"), named)
    unmatched = sorted(view.name for group in vases.values() for view in group if not view.matched)
    _write(vases, scored, lost, unmatched, named, call.output)
    call.progress.speed({**scored.seconds, "disk": time.perf_counter() - began}, len(scored.images))
    count = sum(len(group) for group in vases.values())
    call.progress.note(naming.said(named, count - len(unmatched), len(vases) - len(unmatched)))
    call.progress.summary(
        f"best views of {len(vases)} vases out of {count} images; {len(lost)} vases lost all their views earlier,"
        f" {len(unmatched)} names match no pattern{scored.others.after()}",
        vases=len(vases),
        images=count,
        lost=len(lost),
        unmatched=len(unmatched),
    )


def _similarities(
    images: Path,
    photographs: Sequence[ImageFile],
    report: FilteringReport | None,
    call: spec.StageCall[Params, Options],
) -> _Scored:
    """Return the similarities of the images.

    The similarities in clip-filter's report are used again. Similarities that the report lacks are computed here.
    """
    params, options, inputs = call.params, call.options, call.inputs
    known = {row.name: row.high_similarity for row in (report.images if report else []) if row.accepted}
    scored = [
        (item.name, item.path, known[item.name]) for item in photographs if item.name in known and not item.problem
    ]
    missing = [item for item in photographs if item.name not in known or item.problem]
    if not missing:
        return _Scored(scored, [], {"decode": 0.0, "model": 0.0}, True)
    if "clip_model" not in inputs:
        raise ConfigError(
            f"{len(missing)} images in {images} were not scored by clip-filter; give clip-filter's whole output, or"
            " --clip-model to score them here."
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
            f"clip-filter scored {images} with a CLIP model that differs from {inputs['clip_model']}; use the model"
            " that clip-filter used, or a folder of images without a clip-filter report."
        )
    fresh = _score(missing, model, prompts, params, options, call.progress)
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
        None if params.exact_decode else model.preprocess.cover,
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
    """Place the best view of every vase in best_views/.

    If an earlier call chose a different view of the vase, that view is removed.
    """
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
    for name in before & rivals - chosen:  # an earlier call chose this view, but the vase has a better view now
        remove_ours(output, f"best_views/{name}")


def _write(
    vases: dict[str, list[View]],
    scored: _Scored,
    lost: list[LostVase],
    unmatched: list[str],
    named: Naming,
    output: spec.Output,
) -> None:
    from vasevqa.curation.reports import BestViewsReport, passed_over_files
    from vasevqa.curation.views import choose_view, view_statistics

    BestViewsReport(
        scores_from="clip-filter" if scored.reused else "this step",
        named_by=named.names,
        vases=[choose_view(vase, vases[vase]) for vase in sorted(vases)],
        unmatched=unmatched,
        lost=lost,
        quarantined=scored.quarantined,
        passed_over=passed_over_files(scored.others),
    ).write(output)
    view_statistics(vases, lost, unmatched).write(output)
    with output.writing("lost_vases.csv", "w") as stream:
        rows = [(row.vase, row.lost_at, row.best, row.score) for row in lost]
        files.write_table(stream, ("vase", "lost_at", "best", "score"), rows)


def check(inputs: Mapping[str, Path | None], params: Params) -> None:
    """Raise ConfigError for an invalid name pattern. Raise DataError if no pattern matches the photographs' names.

    If only some names don't match, no error is raised here, because an earlier step may still reject these photographs.
    The names are checked again when the step runs.
    """
    from vasevqa.curation import naming
    from vasevqa.curation.images import find_images

    check_patterns(params.name_pattern)
    images = inputs.get("images")
    if images is not None and images.is_dir():
        found = list(find_images(images))
        named = naming.naming_of(params.name_pattern, [item.name for item in found])
        if found and not named.rules and params.unmatched == "error":
            naming.refuse_unmatched(found, named)


STAGE = spec.Stage(
    "select-views",
    4,
    Params,
    Options,
    (
        spec.Input("images", "--input-dir", "clip-filter's output, its accepted/ folder, or any folder of photographs"),
        spec.Input(
            "clip_model",
            "--clip-model",
            "a CLIP model, needed if clip-filter hasn't scored the images",
            required=False,
            hub=True,
        ),
        spec.Input(
            "classified",
            "--classified-dir",
            "classify's output, to list the vases that were lost there",
            required=False,
        ),
    ),
    "Picks the best view of every vase.",
    spec.Resources(cpus=2, memory="4Gi"),
    sources=(
        "vasevqa.curation.images",
        "vasevqa.curation.decoding",
        "vasevqa.curation.colours",
        "vasevqa.folders",
        "vasevqa.curation.file_names",
        "vasevqa.curation.naming",
        "vasevqa.curation.clip",
        "vasevqa.curation.scoring",
        "vasevqa.curation.predictions",
        "vasevqa.curation.reports",
        "vasevqa.curation.views",
    ),
    run=run,
    check=check,
)
