"""clip-filter: accept photographs that look like complete, undamaged vases, and reject all other photographs."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from vasevqa import spec
from vasevqa.curation.reports import (
    DataChecks,
    FilteringAnalysis,
    PromptLists,
    QuarantinedFile,
    ScoringModel,
    TimedScoringModel,
    passed_over_files,
    quarantined_files,
    remove_ours,
)
from vasevqa.errors import ConfigError, DataError
from vasevqa.folders import PassedOver
from vasevqa.text import percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vasevqa.artifacts.known import KnownPhotographs
    from vasevqa.curation.checks import Limits
    from vasevqa.curation.clip import ClipModel
    from vasevqa.curation.embeddings import EmbeddingStore
    from vasevqa.curation.images import ImageFile
    from vasevqa.curation.loader import Loader
    from vasevqa.curation.scoring import Prompts, Scores


class Params(spec.Params):
    """The parameters that decide which images are accepted."""

    threshold: float | None = Field(
        None,
        ge=-2,
        le=2,
        description="minimum score of accepted images; unset: the moderate recommendation from the data",
    )
    analyze_only: bool = Field(
        False, description="only print statistics and recommended thresholds; don't sort the images"
    )
    sample_size: int = Field(500, ge=1, description="number of images that --analyze-only samples")
    seed: int = Field(0, description="seed of the sample of --analyze-only, and of the clusters in typical.csv")
    exact_decode: bool = Field(
        False,
        description=(
            "decode JPEGs in full instead of at the smallest scale that covers twice the model's input (rank"
            " correlation of the scores at least 0.995)"
        ),
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description=(
            "auto is bf16 if the hardware supports it; scores then differ in the third digit between machines"
        ),
    )
    checks: Literal["full", "none"] = Field(
        "full",
        description=(
            "full measures sharpness, exposure, frame, suspected cards and near-duplicates at full resolution, which"
            " decodes large JPEGs a second time (JPEGs of 12 megapixels take 1.5 times the CPU time with a ViT-B/32);"
            " none saves this time"
        ),
    )
    min_side: int | None = Field(None, ge=1, description="minimum pixels of the shorter side of accepted images")
    min_sharpness: float | None = Field(
        None, gt=0, description="minimum sharpness of accepted images; --analyze-only prints the distribution"
    )
    max_clipped: float | None = Field(
        None,
        ge=0,
        le=1,
        description="maximum share of clipped dark or bright pixels of accepted images; a pure backdrop counts too",
    )

    @field_validator("min_side", "min_sharpness", "max_clipped")
    @classmethod
    def _needs_checks(cls, limit: float | None, others: ValidationInfo) -> float | None:
        if limit is not None and others.data.get("checks") == "none":
            raise PydanticCustomError("checks", "a limit can be used only if the data checks run; remove --checks none")
        return limit


class Options(spec.Options):
    """The options that don't change which images are accepted."""

    device: spec.Device = Field("auto", description="auto, cpu, cuda or cuda:N; a missing device is an error")
    batch_size: int = Field(32, ge=1, description="images per batch")
    workers: int = Field(0, ge=0, description="number of decoding threads; 0: one per core")
    model_cache_dir: str | None = Field(None, description="cache folder for models from a hub")
    auto_select_device: bool = Field(False, description="ask which device to use (on a terminal)")
    interactive: bool = Field(False, description="show a menu (on a terminal)")


@dataclass
class _Result:
    names: list[str]
    paths: dict[str, Path]
    scores: Scores
    prompts: Prompts
    quarantined: list[QuarantinedFile]
    others: PassedOver
    model: ScoringModel
    seconds: dict[str, float]
    embedded: EmbeddingStore
    checks: list[DataChecks]
    known: int  # images whose embeddings another run or an earlier attempt computed


def run(call: spec.StageCall[Params, Options]) -> None:
    """Embed and score the images, choose the threshold, and sort the images into accepted/ and rejected/.

    If params.analyze_only is True, the images are not sorted.
    """
    from vasevqa.curation import checks, scoring
    from vasevqa.curation.distribution import distribution

    result = _embed(call)
    values = result.scores.score
    stats, advice = scoring.statistics(values), scoring.recommendations(values)
    threshold, origin = scoring.choose(call.params.threshold, advice)
    seen = distribution(values)
    told = []
    if call.params.analyze_only:
        told = [*scoring.report_lines(stats, advice), seen.advice, *checks.report_lines(result.checks)]
    if not told and call.params.threshold is None and seen.shape != "two groups":
        told = [seen.advice]
    for line in told:
        call.progress.note(line)
    report = FilteringAnalysis(
        model=result.model,
        prompts=PromptLists(high=list(result.prompts.high), low=list(result.prompts.low)),
        statistics=stats,
        recommendations=advice,
        threshold=threshold,
        threshold_source=origin,
        **vars(seen),
        limits={name: value for name, value in vars(_limits(call.params)).items() if value is not None},
        quarantined=result.quarantined,
        passed_over=passed_over_files(result.others),
    )
    figures = _figures(result, threshold, origin)
    if call.folder is not None:
        with call.folder.writing("score_histogram.png") as stream:
            stream.write(scoring.histogram_png(values, threshold, f"Quality of {len(values)} photographs"))
    if call.params.analyze_only:
        if call.folder is not None:
            model = TimedScoringModel(**dict(result.model), seconds=result.seconds)
            report.model_copy(update={"model": model}).write(call.folder)
        call.progress.summary(
            f"{len(values)} images analysed; recommended threshold {threshold:.4f} keeps"
            f" {percent((values >= threshold).mean())}{result.others.after()}",
            **figures,
        )
        return
    _decide(call, result, report, threshold, figures)


def _decide(
    call: spec.StageCall[Params, Options],
    result: _Result,
    report: FilteringAnalysis,
    threshold: float,
    figures: dict[str, int | float | str],
) -> None:
    """Accept or reject every image, sort the images, and write the files for later steps and for people."""
    from vasevqa.curation import checks, sorting, typical

    rows = sorting.decisions(result.names, result.scores, result.prompts, threshold)
    rows = checks.applied(rows, result.checks, _limits(call.params))
    seconds = sorting.sort(result.paths, rows, report, call.output, call.progress)
    if call.params.checks == "full":
        checks.write(call.output, rows, (item.name for item in result.quarantined))
    else:
        remove_ours(call.output, checks.FILE)
    result.embedded.finish(result.names)
    typical.write(call.output, result.names, result.embedded.gather(result.names).numpy(), call.params.seed)
    accepted, failed = sum(row.accepted for row in rows), sum(bool(row.failed_check) for row in rows)
    call.progress.speed({**result.seconds, "disk": seconds}, len(rows))
    call.progress.summary(
        f"accepted {accepted} of {len(rows)} images at threshold {threshold:.4f} ({report.threshold_source}),"
        f" {len(result.quarantined)} unreadable{f', {failed} rejected by data checks' if failed else ''}"
        f"{result.others.after()}",
        **figures,
        accepted=accepted,
        rejected=len(rows) - accepted,
        **({"failed_checks": failed} if report.limits else {}),
    )


def _limits(params: Params) -> Limits:
    from vasevqa.curation.checks import Limits

    return Limits(params.min_side, params.min_sharpness, params.max_clipped)


def _figures(result: _Result, threshold: float, origin: str) -> dict[str, int | float | str]:
    return {
        "images": len(result.names),
        "quarantined": len(result.quarantined),
        "threshold": threshold,
        "threshold_source": origin,
        **({"known": result.known} if result.known else {}),
    }


def _embed(call: spec.StageCall[Params, Options]) -> _Result:
    from vasevqa.curation import checks, clip, scoring
    from vasevqa.curation.devices import resolve_device
    from vasevqa.curation.loader import Loader

    device = resolve_device(call.options.device)
    prompts = scoring.load_prompts(call.inputs.get("prompts"))
    others = PassedOver()
    photographs = _photographs(call.params, call.inputs["images"], others)
    model = clip.load_clip(call.inputs["clip_model"], device, call.params.precision, call.options.model_cache_dir)
    embedded = _embedded(model, call.params, call.inputs["images"], None if call.params.analyze_only else call.folder)
    missing = [item for item in photographs if item not in embedded]
    if len(missing) < len(photographs):
        call.progress.note(f"{len(photographs) - len(missing)} images were already embedded by an earlier attempt")
    known = _known(model, photographs, call)
    new = _recall(missing, known, embedded, call.progress)
    loader = Loader(
        new,
        model.preprocess,
        call.options.batch_size,
        call.options.workers,
        None if call.params.exact_decode else model.preprocess.cover,
        partial(checks.measure, reduced=not call.params.exact_decode) if call.params.checks == "full" else None,
    )
    call.progress.start("scoring", len(new))
    seconds = _encode(loader, model, embedded, call.progress)
    unreadable = {item.name for item in loader.quarantined}
    names = [item.name for item in photographs if item.name not in unreadable]
    if not names:
        raise DataError(
            f"None of the {len(photographs)} images in {call.inputs['images']} can be read (first:"
            f" {loader.quarantined[0].reason}); check the files."
        )
    known.keep(embedded.as_bytes(known.lacking(names)))
    scores = scoring.score(
        embedded.gather(names), model.encode_texts(list(prompts.high)), model.encode_texts(list(prompts.low))
    )
    return _Result(
        names,
        {item.name: item.path for item in photographs},
        scores,
        prompts,
        quarantined_files(loader.quarantined),
        others,
        ScoringModel(name=model.name, digest=model.digest, precision=model.precision),
        {"decode": loader.seconds["wait"], "model": seconds},
        embedded,
        checks.read(names, embedded.checks(names)),
        len(photographs) - len(new),
    )


def _photographs(params: Params, folder: Path, others: PassedOver) -> list[ImageFile]:
    """Return all images, or a random sample if params.analyze_only is True. Raise DataError if there is no image."""
    from vasevqa.curation import images

    photographs = list(images.find_images(folder, others=others))
    if not photographs:
        raise DataError(f"There is no image in {folder}{others.hint()}; check --input-dir.")
    if not params.analyze_only or len(photographs) <= params.sample_size:
        return photographs
    chosen = random.Random(params.seed).sample(range(len(photographs)), params.sample_size)
    return [photographs[index] for index in sorted(chosen)]


def _embedded(model: ClipModel, params: Params, images: Path, output: spec.Output | None) -> EmbeddingStore:
    """Return the store of embeddings in `output`.

    The store holds the embeddings that an earlier attempt computed with the same settings.
    """
    from vasevqa.curation import checks
    from vasevqa.curation.embeddings import EmbeddingStore

    header = {
        "model": model.digest,
        "precision": model.precision,
        "exact": str(params.exact_decode),
        "images": str(images),
    }
    size = 0
    if params.checks == "full":
        header["checks"], size = str(DataChecks.VERSION), checks.SIZE
    return EmbeddingStore(output.root if output else None, output.writing if output else None, header, size)


def made_for(model: str, precision: str, params: Params) -> dict[str, object]:
    """Return the facts, apart from the photograph itself, that determine the stored value of a photograph.

    The value holds the photograph's embedding and, if params.checks is "full", its data checks. It is used again only
    if these facts are the same. `model` is the digest of the CLIP model.
    """
    made: dict[str, object] = {"stage": STAGE.name, "version": STAGE.version, "model": model, "precision": precision}
    return {**made, "exact": params.exact_decode, **({"checks": DataChecks.VERSION} if params.checks == "full" else {})}


def _known(
    model: ClipModel, photographs: Sequence[ImageFile], call: spec.StageCall[Params, Options]
) -> KnownPhotographs:
    """Return the embeddings that earlier runs stored on the volume, or none if a hub may have changed the model."""
    from vasevqa.artifacts.known import KnownPhotographs

    volume = call.folder.volume if call.folder and not model.digest.endswith("@main") else None
    names = [item.name for item in photographs if not item.problem]
    return KnownPhotographs(volume, call.inputs["images"], names, made_for(model.digest, model.precision, call.params))


def _recall(
    missing: list[ImageFile], known: KnownPhotographs, embedded: EmbeddingStore, progress: spec.Progress
) -> list[ImageFile]:
    """Copy the known embeddings to `embedded`, and return the images that have no known embedding."""
    for item in missing:
        if item.name in known.values:
            embedded.recall(item.name, item.path, known.values[item.name])
    new = [item for item in missing if item not in embedded]
    if len(new) < len(missing):
        progress.note(f"{len(missing) - len(new)} images are known from earlier runs, {len(new)} are new")
    return new


def _encode(loader: Loader, model: ClipModel, embedded: EmbeddingStore, progress: spec.Progress) -> float:
    """Embed every readable image of the loader, and return the model's computing time in seconds."""
    seconds = 0.0
    done = 0
    for batch in loader:
        began = time.perf_counter()
        embedded.add(batch.names, batch.paths, model.encode_images(batch.pixels), batch.measured)
        seconds += time.perf_counter() - began
        progress.advance(len(batch.names) + len(loader.quarantined) - done)
        done = len(loader.quarantined)
    embedded.flush()
    return seconds


def check_terminal(what: str) -> None:
    """Raise ConfigError if there is no terminal on which the user can answer questions."""
    import sys

    if not sys.stdin.isatty():
        raise ConfigError(f"{what} needs a terminal, but there is none; give flags instead.")


STAGE = spec.Stage(
    "clip-filter",
    4,
    Params,
    Options,
    (
        spec.Input("images", "--input-dir", "the folder of photographs"),
        spec.Input(
            "clip_model", "--clip-model", "a CLIP model: Hugging Face folder, open_clip folder or hub id", hub=True
        ),
        spec.Input(
            "prompts", "--prompts", "a YAML or JSON file with the lists `high` and `low`", required=False, kind="file"
        ),
    ),
    "CLIP quality filter: keeps complete, undamaged vases.",
    spec.Resources(cpus=4, memory="8Gi", gpus=1, gpu_memory="8Gi"),
    needs_output=lambda params: not params.analyze_only,
    sources=(
        "vasevqa.curation.images",
        "vasevqa.curation.decoding",
        "vasevqa.curation.colours",
        "vasevqa.folders",
        "vasevqa.curation.loader",
        "vasevqa.curation.clip",
        "vasevqa.curation.scoring",
        "vasevqa.curation.distribution",
        "vasevqa.curation.embeddings",
        "vasevqa.curation.checks",
        "vasevqa.curation.cards",
        "vasevqa.curation.hashes",
        "vasevqa.curation.sorting",
        "vasevqa.curation.typical",
        "vasevqa.curation.file_names",
        "vasevqa.curation.naming",
        "vasevqa.curation.reports",
    ),
    interact="vasevqa.stages.clip_menu:interact",
    run=run,
)
