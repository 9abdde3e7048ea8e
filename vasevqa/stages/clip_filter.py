"""clip-filter: keep photographs that look like complete, undamaged vases; set the others aside."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from vasevqa import spec
from vasevqa.curation.reports import (
    FilteringAnalysis,
    FilteringReport,
    PromptLists,
    QuarantinedFile,
    ScoredImage,
    ScoringModel,
    TimedScoringModel,
    quarantined_files,
)
from vasevqa.errors import ConfigError, DataError

if TYPE_CHECKING:
    from vasevqa.curation.clip import ClipModel
    from vasevqa.curation.embeddings import EmbeddingStore
    from vasevqa.curation.images import ImageFile
    from vasevqa.curation.loader import Loader
    from vasevqa.curation.scoring import Prompts, Scores


class Params(spec.Params):
    """What decides which images are accepted."""

    threshold: float | None = Field(
        None,
        ge=-2,
        le=2,
        description="keep images scoring at least this; unset: the moderate recommendation from the data",
    )
    analyze_only: bool = Field(False, description="print statistics and recommended thresholds; sort nothing")
    sample_size: int = Field(500, ge=1, description="number of images that --analyze-only samples")
    seed: int = Field(0, description="seed of the sample of --analyze-only")
    exact_decode: bool = Field(
        False, description="decode JPEGs in full instead of at the smallest scale that covers the model's input"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description=(
            "auto is bf16 where the hardware computes in it; scores then differ in the third digit between machines"
        ),
    )


class Options(spec.Options):
    """How the filter runs."""

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N; a missing device is an error")
    batch_size: int = Field(32, ge=1, description="images a batch")
    workers: int = Field(0, ge=0, description="decoding threads; 0: as many as cores")
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
    model: ScoringModel
    seconds: dict[str, float]
    embedded: EmbeddingStore


def run(call: spec.StageCall[Params, Options]) -> None:
    """Embed, score, choose the threshold, and sort into accepted/ and rejected/ (unless params.analyze_only)."""
    from vasevqa.curation import scoring

    result = _embed(call)
    values = result.scores.score
    stats, advice = scoring.statistics(values), scoring.recommendations(values)
    threshold, origin = scoring.choose(call.params.threshold, advice)
    if call.params.analyze_only:
        for line in scoring.report_lines(stats, advice):
            call.progress.note(line)
    report = FilteringAnalysis(
        model=result.model,
        prompts=PromptLists(high=list(result.prompts.high), low=list(result.prompts.low)),
        statistics=stats,
        recommendations=advice,
        threshold=threshold,
        threshold_source=origin,
        quarantined=result.quarantined,
    )
    figures: dict[str, Any] = {
        "images": len(values),
        "quarantined": len(result.quarantined),
        "threshold": threshold,
        "threshold_source": origin,
    }
    if call.folder is not None:
        with call.folder.writing("score_histogram.png") as stream:
            stream.write(scoring.histogram_png(values, threshold, f"Quality of {len(values)} photographs"))
    if call.params.analyze_only:
        if call.folder is not None:
            model = TimedScoringModel(**dict(result.model), seconds=result.seconds)
            report.model_copy(update={"model": model}).write(call.folder)
        call.progress.summary(
            f"{len(values)} images analysed; recommended threshold {threshold:.4f} keeps"
            f" {(values >= threshold).mean():.0%}",
            **figures,
        )
        return
    rows = _rows(result, threshold)
    seconds = _sort(result, rows, report, call.output, call.progress)
    result.embedded.finish(result.names)
    accepted = sum(row.accepted for row in rows)
    call.progress.speed({**result.seconds, "disk": seconds}, len(rows))
    call.progress.summary(
        f"accepted {accepted} of {len(rows)} images at threshold {threshold:.4f} ({origin}), {len(result.quarantined)}"
        " unreadable",
        **figures,
        accepted=accepted,
        rejected=len(rows) - accepted,
    )


def _embed(call: spec.StageCall[Params, Options]) -> _Result:
    from vasevqa.curation import clip, scoring
    from vasevqa.curation.devices import resolve_device
    from vasevqa.curation.loader import Loader

    device = resolve_device(call.options.device)
    prompts = scoring.load_prompts(call.inputs.get("prompts"))
    found = _photographs(call.params, call.inputs["images"])
    model = clip.load_clip(call.inputs["clip_model"], device, call.params.precision, call.options.model_cache_dir)
    embedded = _embedded(model, call.params, call.inputs["images"], None if call.params.analyze_only else call.folder)
    missing = [item for item in found if item not in embedded]
    if len(missing) < len(found):
        call.progress.note(f"{len(found) - len(missing)} images were embedded before and are not embedded again")
    loader = Loader(
        missing,
        model.preprocess,
        call.options.batch_size,
        call.options.workers,
        None if call.params.exact_decode else model.preprocess.size,
    )
    call.progress.start("scoring", len(missing))
    seconds = _encode(loader, model, embedded, call.progress)
    unreadable = {item.name for item in loader.quarantined}
    names = [item.name for item in found if item.name not in unreadable]
    if not names:
        raise DataError(
            f"None of the {len(found)} images in {call.inputs['images']} can be read (first:"
            f" {loader.quarantined[0].reason}); check the files."
        )
    scores = scoring.score(
        embedded.gather(names), model.encode_texts(list(prompts.high)), model.encode_texts(list(prompts.low))
    )
    return _Result(
        names,
        {item.name: item.path for item in found},
        scores,
        prompts,
        quarantined_files(loader.quarantined),
        ScoringModel(name=model.name, digest=model.digest, precision=model.precision),
        {"decode": loader.seconds["wait"], "model": seconds},
        embedded,
    )


def _photographs(params: Params, folder: Path) -> list[ImageFile]:
    """The images to look at: all, or a sample where they are only analysed. DataError if there is none."""
    from vasevqa.curation import images

    found = list(images.find_images(folder))
    if not found:
        raise DataError(f"There is no image in {folder} ({', '.join(sorted(images.SUFFIXES))}); check --input-dir.")
    if not params.analyze_only or len(found) <= params.sample_size:
        return found
    chosen = random.Random(params.seed).sample(range(len(found)), params.sample_size)
    return [found[index] for index in sorted(chosen)]


def _embedded(model: ClipModel, params: Params, images: Path, output: spec.Output | None) -> EmbeddingStore:
    """Return the embeddings in `output`, with those that an earlier attempt computed with the same settings."""
    from vasevqa.curation.embeddings import EmbeddingStore

    header = {
        "model": model.digest,
        "precision": model.precision,
        "exact": str(params.exact_decode),
        "images": str(images),
    }
    return EmbeddingStore(output.root if output else None, output.writing if output else None, header)


def _encode(loader: Loader, model: ClipModel, embedded: EmbeddingStore, progress: spec.Progress) -> float:
    """Embed every image of the loader that can be read. Returns the model's seconds."""
    seconds = 0.0
    done = 0
    for batch in loader:
        began = time.perf_counter()
        embedded.add(batch.names, batch.paths, model.encode_images(batch.pixels))
        seconds += time.perf_counter() - began
        progress.advance(len(batch.names) + len(loader.quarantined) - done)
        done = len(loader.quarantined)
    embedded.flush()
    return seconds


def _rows(result: _Result, threshold: float) -> list[ScoredImage]:
    scores = result.scores
    rows = []
    for index, (name, value) in enumerate(zip(result.names, scores.score, strict=True)):
        accepted = bool(value >= threshold)
        decided = (
            result.prompts.high[scores.nearest_high[index]]
            if accepted
            else result.prompts.low[scores.nearest_low[index]]
        )
        rows.append(
            ScoredImage(
                name=name,
                score=float(value),
                high_similarity=float(scores.high[index]),
                low_similarity=float(scores.low[index]),
                accepted=accepted,
                decided_by=decided,
            )
        )
    return rows


def _sort(
    result: _Result,
    rows: list[ScoredImage],
    analysis: FilteringAnalysis,
    output: spec.Output,
    progress: spec.Progress,
) -> float:
    """Place every image; what an earlier call into the same folder had decided otherwise is moved. Returns seconds."""
    from vasevqa.curation.reports import remove_ours

    began = time.perf_counter()
    before = FilteringReport.read(output.root) or FilteringReport()
    earlier = {row.name: row for row in (*before.earlier_images, *before.images)}
    now = {row.name for row in rows}
    kept = [row for name, row in earlier.items() if name not in now]
    report = FilteringReport(**dict(analysis), images=rows, earlier_images=kept, complete=False)
    # Written before anything moves as well: a killed call leaves word of what it was about to place.
    report.write(output)
    progress.start("sorting", len(rows))
    for row in rows:
        output.place(result.paths[row.name], f"{_side(row)}/{row.name}")
        decided = earlier.get(row.name)
        if decided is not None and decided.accepted != row.accepted:
            remove_ours(output, f"{_side(decided)}/{row.name}")
        progress.advance()
    report.model_copy(update={"complete": True}).write(output)
    return time.perf_counter() - began


def _side(row: ScoredImage) -> str:
    return "accepted" if row.accepted else "rejected"


def check_terminal(what: str) -> None:
    """Raise ConfigError if there is no terminal on which the user can answer questions."""
    import sys

    if not sys.stdin.isatty():
        raise ConfigError(f"{what} needs a terminal, and there is none; give the choice as flags instead.")


STAGE = spec.Stage(
    "clip-filter",
    2,
    Params,
    Options,
    (
        spec.Input("images", "--input-dir", "the folder of photographs"),
        spec.Input(
            "clip_model", "--clip-model", "a CLIP model: Hugging Face folder, open_clip folder or hub id", hub=True
        ),
        spec.Input("prompts", "--prompts", "a YAML or JSON file with the lists `high` and `low`", required=False),
    ),
    "CLIP quality filter: keeps complete, undamaged vases.",
    spec.Resources(cpus=4, memory="8Gi", gpus=1, gpu_memory="8Gi"),
    needs_output=lambda params: not params.analyze_only,
    sources=(
        "vasevqa.curation.images",
        "vasevqa.curation.loader",
        "vasevqa.curation.clip",
        "vasevqa.curation.scoring",
        "vasevqa.curation.embeddings",
        "vasevqa.curation.reports",
    ),
    interact="vasevqa.stages.clip_menu:interact",
    run=run,
)
