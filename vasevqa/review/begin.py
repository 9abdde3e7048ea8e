"""Open a review: find the photographs, their vases, their labels, and the scores of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vasevqa.artifacts.volume import Volume
from vasevqa.curation import predictions, typical
from vasevqa.curation.reports import ClassificationReport, FilteringReport
from vasevqa.dataset.collection import Collection, look_at, look_at_table
from vasevqa.dataset.reading import Reading
from vasevqa.errors import ConfigError, DataError
from vasevqa.pipeline.inspection import reading_of
from vasevqa.pipeline.recipe import load_recipe
from vasevqa.pipeline.runs import Run, find_run
from vasevqa.review.choosing import FOR_THRESHOLD, UNIFORM, Scores
from vasevqa.review.photographs import photographs_of
from vasevqa.review.questions import QUALITY, Question
from vasevqa.review.record import Record
from vasevqa.spec import Pipeline


@dataclass(frozen=True)
class Source:
    """The folder of the photographs, and how to read names and tables.

    `table` is the table that names the vases. `scores` and `groups` are results of a run. All three are optional.
    """

    folder: Path
    reading: Reading = field(default_factory=Reading)
    table: Path | None = None
    scores: Scores | None = None
    groups: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # name -> (group, rank), as in choosing.Pool


@dataclass(frozen=True)
class Review:
    """An open review: the labels, the scores and groups of a run, and remarks for the user (`said`)."""

    record: Record
    scores: Scores | None
    said: Sequence[str]
    groups: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def source_of(name: str, volume: Path, question: Question, pipeline: Pipeline) -> Source:
    """Return the photographs in the folder `name`, or the photographs and scores of the run `name` on the volume.

    Raise ConfigError if neither the folder nor the run exists. Raise DataError if the run's photographs are not on this
    machine.
    """
    folder = Path(name)
    if folder.exists():
        return Source(folder)
    if not (volume / "runs").is_dir():
        raise ConfigError(
            f"There is no folder {name}, and no run on the volume {volume}; give the folder of the photographs, or"
            " --volume."
        )
    run = find_run(Volume(volume.absolute()), name)
    recipe = load_recipe(run.recipe, pipeline, here=False)
    images, table = recipe.inputs.get("images"), recipe.inputs.get("annotations")
    if images is None or not Path(images).is_dir():
        raise DataError(f"The photographs of {run.name} are not on this machine ({images}); give their folder.")
    filtered = run.artifacts().get("clip-filter")
    groups = {} if filtered is None else typical.read(filtered)
    at = None if table is None else Path(table)
    return Source(Path(images), reading_of(recipe), at, scores_of(run, question), groups)


def decides(question: Question) -> str:
    """Return the name of the step that decides a question for each photograph: classify or clip-filter."""
    return "classify" if question is QUALITY else "clip-filter"


def scores_of(run: Run, question: Question) -> Scores | None:
    """Return the scores of the step that decides the question; None if the run has no scores of this step."""
    step = decides(question)
    folder = run.artifacts().get(step)
    if folder is None:
        return None
    if question is QUALITY:
        values = {one.name: one.probability for one in predictions.read(folder) if one.probability is not None}
        report = ClassificationReport.read(folder)
        threshold = report.confidence_threshold if report else None
    else:
        filtered = FilteringReport.read(folder) or FilteringReport()
        values = {row.name: row.score for row in filtered.images}
        threshold = filtered.threshold
    if not values or threshold is None:
        return None
    return Scores(values, threshold, step, UNIFORM if question is QUALITY else FOR_THRESHOLD)


def open_review(source: Source, question: Question, into: Path) -> Review:
    """List the photographs, and read the labels in the folder `into`.

    For the question `quality`, labelled photographs are also copied to 0/ and 1/ in `into`. Raise ConfigError or
    DataError if the folder of the photographs, the table or `into` can't be used.
    """
    collection = look_at(source.folder, source.reading)
    if into.resolve().is_relative_to(source.folder.resolve()):
        raise ConfigError(f"{into} lies in the folder of the photographs; give a folder outside of it as --into.")
    vases, said = _vases(source, collection)
    photographs = photographs_of(collection, vases)
    if not photographs:
        raise DataError(f"No photograph in {source.folder} can be used ({collection.files[0].problem}).")
    record = Record(into, question, photographs)
    if source.groups:
        count = len({group for group, _ in source.groups.values()})
        said.append(f"shown first: typical photographs of {count} groups of look-alikes")
    if source.scores is not None:
        first = "then" if source.groups else "shown first"
        said.append(f"{first}: photographs near the threshold {source.scores.threshold:g} of {source.scores.step}")
    if record.elsewhere():
        said.append(
            f"{record.elsewhere()} labels in {into} belong to photographs that are missing here or have changed"
        )
    if record.file.torn:
        said.append(f"{record.file.torn} lines of {record.file.path} were cut by a kill and are left out")
    return Review(record, source.scores, [*said, *record.problems()], source.groups)


def _vases(source: Source, collection: Collection) -> tuple[dict[str, str], list[str]]:
    """Return the vases that the table adds, by photograph name, and remarks about the vases.

    The table is used only for photographs whose names contain no vase.
    """
    said = [collection.said()]
    if collection.vases:
        said.append(f"vases told apart by {collection.naming}")
    if source.table is None or not collection.unmatched:
        return {}, said
    try:
        told = look_at_table(source.table, collection, source.reading).vase_of
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"{source.table} needs {missing.name}, which isn't installed here; save the table as CSV UTF-8."
        ) from None
    by_table = {name: vase for name, vase in told.items() if name in set(collection.unmatched)}
    return by_table, [*said, f"{source.table} gives the vases of {len(by_table)} further photographs"]


def with_options(
    source: Source, name_pattern: Sequence[str], vase_column: str | None, annotations: Path | None
) -> Source:
    """Return the source with the user's options about vases: name patterns, vase column and table.

    Raise ConfigError if a vase column is given without a table, or if the file `annotations` doesn't exist.
    """
    columns = {"vase_id": vase_column} if vase_column else source.reading.columns
    reading = Reading(list(name_pattern) or source.reading.name_pattern, columns, source.reading.records)
    table = annotations or source.table
    if vase_column and table is None:
        raise ConfigError("--vase-column names a column, but no table is given; add --annotations.")
    if annotations is not None and not annotations.exists():
        raise ConfigError(f"There is no table {annotations}; check --annotations.")
    return replace(source, reading=reading, table=table)
