"""The stage build-dataset joins pictures with annotations, splits them without leaks, and writes rows for ms-swift."""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from vasevqa.curation import hashes, metadata, naming, neighbours
from vasevqa.curation.images import ImageFile, find_images
from vasevqa.curation.reports import QuarantinedFile, passed_over_files
from vasevqa.dataset import assignment, splits
from vasevqa.dataset.annotations import Problem, Record, read_annotations
from vasevqa.dataset.columns import Columns
from vasevqa.dataset.duplicates import Sketch, clip_features, registered_pairs
from vasevqa.dataset.join import Conversation, Joined, Picture, join
from vasevqa.dataset.params import BuildOptions, BuildParams, photograph_folder
from vasevqa.dataset.problems import NOTHING_LOST
from vasevqa.dataset.questions import load_questions
from vasevqa.dataset.report import DatasetReport, ListedProblem
from vasevqa.dataset.rows import FILES, Row, make_rows
from vasevqa.dataset.sketches import Store, sketch_all
from vasevqa.dataset.texts import clean
from vasevqa.dataset.vases import Vases
from vasevqa.errors import ConfigError, DataError
from vasevqa.folders import PassedOver

if TYPE_CHECKING:
    from vasevqa.spec import Output, StageCall

LISTED = 1000  # maximum number of listed problems of each kind; all problems are counted


@dataclass
class _Job:
    params: BuildParams
    problems: list[Problem]
    quarantined: list[QuarantinedFile] = field(default_factory=list)
    others: PassedOver = field(default_factory=PassedOver)
    notes: list[str] = field(default_factory=list)
    sides: dict[str, str] = field(default_factory=dict)  # the side that the user assigned to each vase
    lenient: dict[str, int] = field(default_factory=dict)
    cleaned: dict[str, int] = field(default_factory=dict)
    columns: Columns = field(default_factory=Columns)


def build(call: StageCall[BuildParams, BuildOptions], made_for: Mapping[str, object]) -> None:
    """Write the rows, their images and the report to the output folder.

    `made_for` identifies the version of the stage and of the code that computes sketches of pictures. A stored sketch
    is used only if the same version made it. Raise DataError if there is no training row.
    """
    prefix, root = _image_prefix(call.output, call.options.image_root)
    questions = load_questions(call.inputs.get("questions"))
    columns = Columns(call.params.columns)
    told = read_annotations(call.inputs["annotations"], columns, call.params.records)
    cleaned = clean(told.records, told.problems)
    unused = told.unread + len(told.records) - len(cleaned.records)
    given = assignment.read(call.inputs["splits"]) if "splits" in call.inputs else {}
    job = _Job(call.params, told.problems, sides=given, cleaned=dict(cleaned.changed), columns=columns)
    job.notes += columns.notes()
    seconds: dict[str, float] = {}
    began = time.perf_counter()
    folder = photograph_folder(call.params, call.inputs)
    photographs = _photographs(folder, job.others)
    vases = _vases(photographs, call)
    store = Store(call.output.volume, made_for)
    read = sketch_all(photographs, folder, store, call.options.workers, call.progress)
    job.quarantined, pictures = read.quarantined, _pictures(read.files, vases, read.quarantined)
    seconds["decode"] = time.perf_counter() - began
    began = time.perf_counter()
    joined = join(pictures, cleaned.records, _roots(call.inputs), job.problems, vases.of_name)
    own, conversations = _own_vases(pictures, joined, vases, job), joined.conversations
    job.lenient = dict(joined.lenient)
    job.notes += [f"{count} matches differ in: {why}" for why, count in joined.lenient.items()]
    job.notes += [f"{count} texts were cleaned of {what}" for what, count in cleaned.changed.items()]
    pairs = _near_duplicates(pictures, read.sketches, call) if call.params.group_duplicates else []
    _split(pictures, conversations, pairs, job)
    rows = make_rows(pictures, conversations, questions, call.params, prefix, job.problems)
    seconds["join and split"] = time.perf_counter() - began
    job.notes += _unrecognized(rows)
    if not rows["sft"]:
        raise _nothing_left(pictures, told.records, job.problems)
    if not call.params.allow_unmatched:
        _check_matched(len(pictures), joined, unused, job.problems)
    began = time.perf_counter()
    used = _write(rows, pictures, prefix, job, call)
    seconds["disk"] = time.perf_counter() - began
    with call.output.writing(assignment.FILE, "w") as stream:
        assignment.write(stream, _sides(rows))
    _report(rows, pictures, pairs, job, call.output, root)
    for note in job.notes:
        call.progress.note(note)
    call.progress.speed(seconds, len(pictures))
    counts = {name: len(written) for name, written in rows.items()}
    call.progress.summary(
        f"{counts['sft']} rows for SFT, {counts['val']} for validation, {counts['grpo']} for GRPO,"
        f" {counts['eval']} for evaluation, of {used} images; {len(job.problems)} problems, {len(job.quarantined)}"
        f" unreadable{f', {own} names match no pattern' if own else ''}{job.others.after()}",
        **counts,
        images=used,
        unmatched=own,
        problems=len(job.problems),
        quarantined=len(job.quarantined),
        **({"known": read.known} if read.known else {}),
    )


def _unrecognized(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    unknown = sum(row["attribute"] == "" for side_rows in rows.values() for row in side_rows)
    return [f"{unknown} rows of conversations have no attribute: their questions are not recognized"] * bool(unknown)


def _check_matched(pictures: int, joined: Joined, unused: int, problems: Sequence[Problem]) -> None:
    """Raise DataError if most photographs have no row, or if most rows are dropped.

    In these cases, the annotations probably belong to different photographs. `unused` is the number of rows that could
    not be read or are empty.
    """
    rows, dropped = joined.records + unused, joined.dropped + unused
    if 2 * len(joined.spoken) < pictures:
        what = f"Only {len(joined.spoken)} of {pictures} photographs have a row in the annotations"
    elif 2 * dropped > rows:
        what = f"{dropped} of {rows} rows of the annotations are dropped"
    else:
        return
    raise DataError(
        f"{what}, and {_most_often(problems)}; check that the annotations belong to these photographs, or set"
        " allow_unmatched to true to build the dataset anyway."
    )


def _most_often(problems: Sequence[Problem]) -> str:
    """Return a clause that names the most common kind of problem, its count, and the first place where it occurs.

    A kind in `NOTHING_LOST` is named only if there are no problems of other kinds.
    """
    kinds = Counter(problem.kind for problem in problems if problem.kind not in NOTHING_LOST)
    kinds = kinds or Counter(problem.kind for problem in problems)
    if len(kinds) > 1:
        del kinds["image without a row"]  # a consequence of the other problems
    most, times = kinds.most_common(1)[0] if kinds else ("no annotations", 0)
    first = next((problem for problem in problems if problem.kind == most), None)
    return f"the most common problem is '{most}' ({times} time{'s' if times != 1 else ''}" + (
        f", first {first.where}: {first.what})" if first else ")"
    )


def _nothing_left(pictures: Sequence[Picture], records: Sequence[Record], problems: Sequence[Problem]) -> DataError:
    """Return the error for a dataset that has no training rows."""
    return DataError(
        f"No training row is left of {len(pictures)} images and {len(records)} annotations, and"
        f" {_most_often(problems)}; check that the annotations belong to these images."
    )


def _image_prefix(output: Output, given: str | None) -> tuple[str, str]:
    """Return the prefix of image paths in rows, and the relative path from the dataset's folder to the image root.

    Raise ConfigError if the image root doesn't contain the dataset's folder.
    """
    final = output.final
    root = Path(given).absolute() if given else output.volume or final
    if not final.is_relative_to(root):
        raise ConfigError(f"--image-root {root} does not contain the output folder {final}; give a folder above it.")
    inside = final.relative_to(root)
    return PurePosixPath(*inside.parts, "images").as_posix(), Path(os.path.relpath(root, final)).as_posix()


def _roots(inputs: Mapping[str, Path]) -> list[Path]:
    """Return the folders that absolute paths in annotations may point into."""
    annotations = inputs["annotations"]
    return [
        annotations if annotations.is_dir() else annotations.parent,
        *(inputs[name] for name in ("images", "accepted") if name in inputs),
    ]


def _photographs(folder: Path, others: PassedOver) -> list[ImageFile]:
    photographs = list(find_images(folder, others=others))
    if not photographs:
        raise DataError(f"There is no image in {folder}{others.hint()}; check --input-dir.")
    return photographs


def _vases(photographs: Sequence[ImageFile], call: StageCall[BuildParams, BuildOptions]) -> Vases:
    images = call.inputs["images"]
    # In a launcher's step, files above the input folder are not read, because the artifact's key doesn't cover them.
    reports = [images, images.parent] if call.output.standalone else [images]
    return Vases.of(call.params, reports, [item.name for item in photographs])


def _pictures(readable: Sequence[ImageFile], vases: Vases, unread: Sequence[QuarantinedFile]) -> list[Picture]:
    """Return the readable images with their vases. Raise DataError if no image is readable."""
    if not readable:
        raise DataError(
            f"None of the {len(unread)} images can be read (first: {unread[0].name}, {unread[0].reason}); check the"
            " files."
        )
    return [Picture(one, vases.of_name(one.name)) for one in readable]


def _own_vases(pictures: Sequence[Picture], joined: Joined, vases: Vases, job: _Job) -> int:
    """Return the number of photographs that have no annotation and whose names match no pattern.

    Each of these photographs is treated as a separate vase. If the parameter `unmatched` is "error", raise DataError
    instead. Add notes that say how many photographs got their vase from their name, and how many from an annotation.
    """
    untold = set(vases.untold(picture.file.name for picture in pictures))
    own = untold - {pictures[number].file.name for number in joined.spoken}
    if own and job.params.unmatched == "error":
        raise naming.unmatched_error(sorted(own), vases.naming, len(pictures))
    matched = [picture.vase for picture in pictures if picture.file.name not in untold]
    if matched:
        job.notes.append(naming.said(vases.naming, len(matched), len(set(matched))))
    named = [picture for picture in pictures if picture.file.name in untold - own]
    given = sum(picture.has_vase for picture in named)
    if given:
        job.notes.append(f"the vase of {given} photographs was read from annotations, not from their names")
    if len(named) > given:
        alone = len(named) - given
        job.notes.append(f"{alone} photographs are treated as separate vases: their annotations name no vase")
    return len(own)


def _sides(rows: Mapping[str, Sequence[Row]]) -> dict[str, str]:
    """Return the side (train, val or eval) of each vase that has a row."""
    names = {"sft": "train", "val": "val", "eval": "eval"}
    return {row["vase_id"]: side for name, side in names.items() for row in rows[name]}


def _near_duplicates(
    pictures: Sequence[Picture], sketches: list[Sketch], call: StageCall[BuildParams, BuildOptions]
) -> list[tuple[int, int]]:
    by_hash = set(hashes.near_duplicates(np.stack([one.hash for one in sketches]), call.params.hash_distance))
    features = None
    if "accepted" in call.inputs:
        features = clip_features(call.inputs["accepted"] / neighbours.FILE, [picture.file.name for picture in pictures])
    return sorted(by_hash.union(registered_pairs(sketches, by_hash, features)))


def _split(pictures: list[Picture], conversations: list[Conversation], pairs: list[tuple[int, int]], job: _Job) -> None:
    marks: list[list[tuple[str, str]]] = [
        [("vase", picture.vase), *(("row", record.where) for record in picture.records)] for picture in pictures
    ]
    for conversation in conversations:
        for number in conversation.pictures:
            marks[number].append(("row", conversation.where))
    told = {number for conversation in conversations for number in conversation.pictures}
    grouped = splits.groups(len(pictures), marks, pairs)
    grouped = [group for group in grouped if any(pictures[number].records or number in told for number in group)]
    absent = assignment.without_picture(job.sides, {picture.vase for picture in pictures})
    if absent:
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        job.notes.append(f"{len(absent)} vases in the splits have no photograph here: {', '.join(absent[:3])}{more}")
    names = [min(pictures[number].vase for number in group) for group in grouped]
    if grouped and not job.sides:
        vases = {pictures[number].vase for group in grouped for number in group}
        why = f"; {_most_often(job.problems)}" if job.problems else ""
        fractions = job.params.val_fraction, job.params.eval_fraction
        assignment.refuse_too_few(len(vases), len(grouped), *fractions, why)
    sides = splits.split(names, job.params.val_fraction, job.params.eval_fraction, job.params.seed)
    for group, drawn in zip(grouped, sides, strict=True):
        side = assignment.side_of({pictures[number].vase for number in group}, job.sides) or drawn
        for number in group:
            pictures[number].side = side


def _rights(rows: Mapping[str, Sequence[Row]]) -> dict[str, int]:
    """Return the number of pictures for each text in the column `rights`."""
    told = {
        (image, row["rights"])
        for side_rows in rows.values()
        for row in side_rows
        if row.get("rights")
        for image in row["images"]
    }
    return dict(Counter(text for _, text in told).most_common(LISTED))


def _write(
    rows: dict[str, list[Row]],
    pictures: list[Picture],
    prefix: str,
    job: _Job,
    call: StageCall[BuildParams, BuildOptions],
) -> int:
    """Link or copy the images that rows name, write the rows, and return the number of images.

    If the metadata of a JPEG, PNG or WebP file names the place, the owner or a serial number, the image is copied
    without this metadata.
    """
    output, progress = call.output, call.progress
    stripped = left = 0
    wanted = {image for name in FILES for row in rows[name] for image in row["images"]}
    used = [picture for picture in pictures if f"{prefix}/{picture.file.name}" in wanted]
    progress.start("placing", len(used))
    for picture in used:
        name, found = f"images/{picture.file.name}", metadata.read(picture.file.path)
        if found.clean is None:
            output.place(picture.file.path, name)
            left += found.private
        else:
            with output.writing(name) as stream:
                stream.write(found.clean)
            stripped += 1
        progress.advance()
    if stripped:
        job.notes.append(f"{stripped} images were written without the place, owner or serial number in their metadata")
    if left:
        job.notes.append(
            f"{left} images keep a GPS position, an owner or a serial number: only JPEG, PNG and WebP are cleaned"
        )
    for name, file in FILES.items():
        with output.writing(file, "w") as stream:
            for row in rows[name]:
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    return len(used)


def _report(
    rows: dict[str, list[Row]],
    pictures: list[Picture],
    pairs: list[tuple[int, int]],
    job: _Job,
    output: Output,
    root: str,
) -> None:
    listed: dict[str, list[ListedProblem]] = defaultdict(list)
    counts = Counter(problem.kind for problem in job.problems)
    for problem in job.problems:
        if len(listed[problem.kind]) < LISTED:
            listed[problem.kind].append(ListedProblem(where=problem.where, what=problem.what))
    sides = {name: sorted({row["vase_id"] for row in rows[name]}) for name in ("sft", "val", "eval")}
    DatasetReport(
        image_root=root,
        rows={name: len(written) for name, written in rows.items()},
        attributes={
            name: dict(sorted(Counter(row["attribute"] or "conversation" for row in written).items()))
            for name, written in rows.items()
        },
        vases={name: len(vases) for name, vases in sides.items()},
        vase_ids=sides,
        images=len(pictures),
        near_duplicates=[(pictures[one].file.name, pictures[other].file.name) for one, other in pairs[:LISTED]],
        near_duplicate_pairs=len(pairs),
        problems=dict(sorted(counts.items())),
        problem_list=dict(listed),
        lenient=job.lenient,
        cleaned=job.cleaned,
        quarantined=job.quarantined,
        passed_over=passed_over_files(job.others),
        notes=job.notes,
        columns={heading[:200]: name for heading, name in job.columns.used},
        unused_columns={heading[:200]: count for heading, count in job.columns.unused.most_common(LISTED)},
        rights=_rights(rows),
    ).write(output)
