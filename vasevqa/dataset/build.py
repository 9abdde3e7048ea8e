"""build-dataset: pictures joined with annotations, split without leaks, written as ms-swift's rows."""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from vasevqa.curation import file_names
from vasevqa.curation.images import SUFFIXES, ImageFile, Unreadable, find_images, open_image
from vasevqa.curation.reports import QuarantinedFile
from vasevqa.dataset import splits
from vasevqa.dataset.annotations import Problem, Record, read_annotations
from vasevqa.dataset.join import Conversation, Picture, join
from vasevqa.dataset.params import BuildOptions, BuildParams
from vasevqa.dataset.questions import load_questions
from vasevqa.dataset.report import DatasetReport, ListedProblem
from vasevqa.dataset.rows import FILES, Row, make_rows
from vasevqa.errors import ConfigError, DataError

if TYPE_CHECKING:
    from vasevqa.spec import Output, Progress, StageCall

LISTED = 1000  # problems of each kind that are listed; all are counted


@dataclass
class _Job:
    params: BuildParams
    problems: list[Problem]
    quarantined: list[QuarantinedFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def build(call: StageCall[BuildParams, BuildOptions]) -> None:
    """Write the rows, their images and the report to `output`. DataError if nothing is left."""
    prefix, root = _image_prefix(call.output, call.options.image_root)
    questions = load_questions(call.inputs.get("questions"))
    records, problems = read_annotations(call.inputs["annotations"])
    job = _Job(call.params, problems)
    seconds: dict[str, float] = {}
    began = time.perf_counter()
    pictures, hashes = _pictures(_folder(call.params, call.inputs), job, call.options.workers, call.progress)
    seconds["decode"] = time.perf_counter() - began
    began = time.perf_counter()
    conversations = join(pictures, records, _roots(call.inputs), job.problems)
    pairs = splits.near_duplicates(hashes, call.params.hash_distance) if call.params.group_duplicates else []
    _split(pictures, conversations, pairs, job)
    rows = make_rows(pictures, conversations, questions, call.params, prefix, job.problems)
    seconds["join and split"] = time.perf_counter() - began
    if not rows["sft"]:
        raise _nothing_left(pictures, records, job.problems)
    began = time.perf_counter()
    used = _write(rows, pictures, prefix, call.output, call.progress)
    seconds["disk"] = time.perf_counter() - began
    _report(rows, pictures, pairs, job, call.output, root)
    for note in job.notes:
        call.progress.note(note)
    call.progress.speed(seconds, len(pictures))
    counts = {name: len(found) for name, found in rows.items()}
    call.progress.summary(
        f"{counts['sft']} rows to train on, {counts['val']} to validate, {counts['grpo']} to reinforce,"
        f" {counts['eval']} to evaluate, of {used} images; {len(job.problems)} problems, {len(job.quarantined)}"
        " unreadable",
        **counts,
        images=used,
        problems=len(job.problems),
        quarantined=len(job.quarantined),
    )


def _nothing_left(pictures: Sequence[Picture], records: Sequence[Record], problems: Sequence[Problem]) -> DataError:
    """The error of a dataset without a row to train on, which names the problem that comes up most often."""
    kinds = Counter(problem.kind for problem in problems)
    if len(kinds) > 1:
        del kinds["image without a row"]  # a consequence
    most = kinds.most_common(1)[0] if kinds else ("no annotations", 0)
    first = next((problem for problem in problems if problem.kind == most[0]), None)
    return DataError(
        f"No row is left to train on: {len(pictures)} images, {len(records)} annotations, most often '{most[0]}'"
        f" ({most[1]} times"
        + (f", first {first.where}: {first.what}" if first else "")
        + "); check that annotations name the same vases or files."
    )


def _image_prefix(output: Output, given: str | None) -> tuple[str, str]:
    """What stands before `images/...` in a row, and the way from the dataset's folder to the root that this is relative
    to.
    """
    final = output.final
    root = Path(given).absolute() if given else output.volume or final
    if not final.is_relative_to(root):
        raise ConfigError(f"--image-root {root} is not above the output folder {final}; give a folder that holds it.")
    inside = final.relative_to(root)
    return PurePosixPath(*inside.parts, "images").as_posix(), Path(os.path.relpath(root, final)).as_posix()


def _folder(params: BuildParams, inputs: Mapping[str, Path]) -> Path:
    if params.views == "all":
        if "accepted" not in inputs:
            raise ConfigError("--views all needs --accepted-dir: what clip-filter wrote, or any folder of images.")
        base, inner = inputs["accepted"], "accepted"
    else:
        base, inner = inputs["images"], "best_views"
    return base / inner if (base / inner).is_dir() else base


def _roots(inputs: Mapping[str, Path]) -> list[Path]:
    """The folders that absolute paths in annotations may lie in."""
    annotations = inputs["annotations"]
    return [
        annotations if annotations.is_dir() else annotations.parent,
        *(inputs[name] for name in ("images", "accepted") if name in inputs),
    ]


def _pictures(folder: Path, job: _Job, workers: int, progress: Progress) -> tuple[list[Picture], np.ndarray]:
    """The readable images with their vases, and their hashes (N, 32)."""
    found = list(find_images(folder))
    if not found:
        raise DataError(f"There is no image in {folder} ({', '.join(sorted(SUFFIXES))}); check --input-dir.")
    pattern = file_names.name_pattern(job.params.name_pattern)
    progress.start("reading", len(found))
    pictures, hashes = [], []
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        for begin in range(0, len(found), 1024):
            for one, result in zip(
                found[begin : begin + 1024], pool.map(_hash, found[begin : begin + 1024]), strict=True
            ):
                progress.advance()
                if isinstance(result, str):
                    job.quarantined.append(QuarantinedFile(name=one.name, reason=result))
                    continue
                pictures.append(Picture(one, file_names.vase_group(one.name, pattern).lower()))
                hashes.append(result)
    if not pictures:
        raise DataError(
            f"None of the {len(found)} images in {folder} can be read (first: {job.quarantined[0].reason}); check"
            " the files."
        )
    return pictures, np.stack(hashes)


def _hash(found: ImageFile) -> np.ndarray | str:
    if found.problem:
        return found.problem
    try:
        return splits.difference_hash(open_image(found.path, 64))
    except Unreadable as error:
        return error.reason


def _split(pictures: list[Picture], conversations: list[Conversation], pairs: list[tuple[int, int]], job: _Job) -> None:
    marks: list[list[tuple[str, str]]] = [[("vase", picture.vase)] for picture in pictures]
    for conversation in conversations:
        for number in conversation.pictures:
            marks[number].append(("row", conversation.where))
    told = {number for conversation in conversations for number in conversation.pictures}
    grouped = splits.groups(len(pictures), marks, pairs)
    grouped = [group for group in grouped if any(pictures[number].records or number in told for number in group)]
    sides = splits.split(
        [len(group) for group in grouped], job.params.val_fraction, job.params.eval_fraction, job.params.seed
    )
    for group, side in zip(grouped, sides, strict=True):
        for number in group:
            pictures[number].side = side
    for side, fraction in (("eval", job.params.eval_fraction), ("val", job.params.val_fraction)):
        if fraction and side not in sides:
            job.notes.append(f"{len(grouped)} groups of vases are too few for a split '{side}', which is empty")


def _write(rows: dict[str, list[Row]], pictures: list[Picture], prefix: str, output: Output, progress: Progress) -> int:
    """Place the images that rows name, then write the rows; returns the number of images."""
    wanted = {image for name in FILES for row in rows[name] for image in row["images"]}
    used = [picture for picture in pictures if f"{prefix}/{picture.found.name}" in wanted]
    progress.start("placing", len(used))
    for picture in used:
        output.place(picture.found.path, f"images/{picture.found.name}")
        progress.advance()
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
        rows={name: len(found) for name, found in rows.items()},
        attributes={
            name: dict(sorted(Counter(row["attribute"] or "conversation" for row in found).items()))
            for name, found in rows.items()
        },
        vases={name: len(found) for name, found in sides.items()},
        vase_ids=sides,
        images=len(pictures),
        near_duplicates=[(pictures[one].found.name, pictures[other].found.name) for one, other in pairs[:LISTED]],
        near_duplicate_pairs=len(pairs),
        problems=dict(sorted(counts.items())),
        problem_list=dict(listed),
        quarantined=job.quarantined,
        notes=job.notes,
    ).write(output)
