"""build-dataset: pictures joined with annotations, split without leaks, written as ms-swift's rows."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from vasevqa.curation import file_names
from vasevqa.curation.images import SUFFIXES, Found, Unreadable, find_images, open_image
from vasevqa.dataset import splits
from vasevqa.dataset.annotations import Problem, Record, read_annotations
from vasevqa.dataset.questions import Questions, load_questions
from vasevqa.errors import ConfigError, DataError

if TYPE_CHECKING:
    from vasevqa.spec import Output, Progress

REPORT = "dataset_report.json"
FILES = {"sft": "sft.jsonl", "val": "val.jsonl", "grpo": "grpo.jsonl", "eval": "eval.jsonl"}
LISTED = 1000  # problems of each kind that are listed; all are counted
TAG = "<image>"


@dataclass
class Picture:
    """A readable image, its vase, and the records that speak of it."""

    found: Found
    vase: str
    records: list[Record] = field(default_factory=list)
    side: str = "train"


@dataclass
class _Job:
    params: Mapping[str, Any]
    problems: list[Problem]
    quarantined: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def problem(self, kind: str, where: str, what: str) -> None:
        self.problems.append(Problem(kind, where, what))


def build(
    params: Mapping[str, Any],
    options: Mapping[str, Any],
    inputs: Mapping[str, Path],
    output: Output,
    progress: Progress,
) -> None:
    """Write the rows, their images and the report to `output`. DataError if nothing is left."""
    prefix, root = _image_prefix(output, options["image_root"])
    questions = load_questions(inputs.get("questions"))
    records, problems = read_annotations(inputs["annotations"])
    job = _Job(params, problems)
    seconds: dict[str, float] = {}
    began = time.perf_counter()
    pictures, hashes = _pictures(_folder(params, inputs), job, options["workers"], progress)
    seconds["decode"] = time.perf_counter() - began
    began = time.perf_counter()
    conversations = _join(pictures, records, inputs, job)
    pairs = splits.near_duplicates(hashes, params["hash_distance"]) if params["group_duplicates"] else []
    _split(pictures, conversations, pairs, job)
    rows = _rows(pictures, conversations, questions, job, prefix)
    seconds["join and split"] = time.perf_counter() - began
    if not rows["sft"]:
        kinds = Counter(problem.kind for problem in job.problems)
        if len(kinds) > 1:
            del kinds["image without a row"]  # a consequence
        most = kinds.most_common(1)[0] if kinds else ("no annotations", 0)
        first = next((problem for problem in job.problems if problem.kind == most[0]), None)
        raise DataError(
            f"No row is left to train on: {len(pictures)} images, {len(records)} annotations, most often '{most[0]}'"
            f" ({most[1]} times"
            + (f", first {first.where}: {first.what}" if first else "")
            + "); check that annotations name the same vases or files."
        )
    began = time.perf_counter()
    used = _write(rows, pictures, prefix, output, progress)
    seconds["disk"] = time.perf_counter() - began
    _report(rows, pictures, pairs, job, output, root)
    for note in job.notes:
        progress.note(note)
    progress.speed(seconds, len(pictures))
    counts = {name: len(found) for name, found in rows.items()}
    progress.summary(
        f"{counts['sft']} rows to train on, {counts['val']} to validate, {counts['grpo']} to reinforce,"
        f" {counts['eval']} to evaluate, of {used} images; {len(job.problems)} problems, {len(job.quarantined)}"
        " unreadable",
        **counts,
        images=used,
        problems=len(job.problems),
        quarantined=len(job.quarantined),
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


def _folder(params: Mapping[str, Any], inputs: Mapping[str, Path]) -> Path:
    if params["views"] == "all":
        if "accepted" not in inputs:
            raise ConfigError("--views all needs --accepted-dir: what clip-filter wrote, or any folder of images.")
        base, inner = inputs["accepted"], "accepted"
    else:
        base, inner = inputs["images"], "best_views"
    return base / inner if (base / inner).is_dir() else base


def _pictures(folder: Path, job: _Job, workers: int, progress: Progress) -> tuple[list[Picture], np.ndarray]:
    """The readable images with their vases, and their hashes (N, 32)."""
    found = list(find_images(folder))
    if not found:
        raise DataError(f"There is no image in {folder} ({', '.join(sorted(SUFFIXES))}); check --input-dir.")
    pattern = file_names.name_pattern(job.params["name_pattern"])
    progress.start("reading", len(found))
    pictures, hashes = [], []
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        for begin in range(0, len(found), 1024):
            for one, result in zip(
                found[begin : begin + 1024], pool.map(_hash, found[begin : begin + 1024]), strict=True
            ):
                progress.advance()
                if isinstance(result, str):
                    job.quarantined.append({"name": one.name, "reason": result})
                    continue
                pictures.append(Picture(one, file_names.vase_group(one.name, pattern).lower()))
                hashes.append(result)
    if not pictures:
        raise DataError(
            f"None of the {len(found)} images in {folder} can be read (first: {job.quarantined[0]['reason']}); check"
            " the files."
        )
    return pictures, np.stack(hashes)


def _hash(found: Found) -> np.ndarray | str:
    if found.problem:
        return found.problem
    try:
        return splits.difference_hash(open_image(found.path, 64))
    except Unreadable as error:
        return error.reason


class _Index:
    """Pictures by relative name, file name, stem and vase."""

    def __init__(self, pictures: list[Picture], roots: list[Path]) -> None:
        self.roots = roots
        self.by: list[dict[str, list[int]]] = [defaultdict(list) for _ in range(4)]
        for number, picture in enumerate(pictures):
            path = PurePosixPath(picture.found.name)
            for table, key in zip(self.by, (path.as_posix(), path.name, path.stem, picture.vase), strict=True):
                table[key].append(number)

    def vase(self, vase: str) -> list[int]:
        return self.by[3].get(vase, [])

    def image(self, written: str) -> int | str:
        """The picture that an annotation names, or the kind of problem."""
        path = PurePosixPath(written.replace("\\", "/").removeprefix("file://"))
        left = ".." in path.parts
        if path.is_absolute():
            below = next((root for root in self.roots if path.is_relative_to(root)), None)
            left = below is None
            path = path.relative_to(below) if below is not None else path
        for length in range(len(path.parts) if not left else 0, 0, -1):
            found = self.by[0].get(PurePosixPath(*path.parts[-length:]).as_posix(), [])
            if len(found) == 1:
                return found[0]
        for table, key in ((self.by[1], path.name), (self.by[2], path.stem)):
            if len(table.get(key, [])) == 1:
                return table[key][0]
        return "left the volume" if left else "row without an image"


@dataclass(frozen=True)
class Conversation:
    """Turns about pictures, which are in the order of their tags."""

    pictures: tuple[int, ...]
    turns: tuple[tuple[str, str], ...]
    where: str


def _join(pictures: list[Picture], records: list[Record], inputs: Mapping[str, Path], job: _Job) -> list[Conversation]:
    """Give each picture the records of its vase; returns conversations.

    Problems are rows without images and images without rows.
    """
    annotations = inputs["annotations"]
    index = _Index(
        pictures,
        [
            annotations if annotations.is_dir() else annotations.parent,
            *(inputs[name] for name in ("images", "accepted") if name in inputs),
        ],
    )
    spoken: set[int] = set()
    conversations = []
    for record in records:
        matched: list[int] = []
        why = ("row without an image", f"no image of vase {record.vase}")
        for written in record.images:
            answer = index.image(written)
            if isinstance(answer, int):
                matched.append(answer)
            else:
                why = (answer, written)
                if answer == "left the volume":
                    job.problem(answer, record.where, written)
        if not matched and record.vase is not None and why[0] != "left the volume":
            matched = index.vase(record.vase)
        matched = list(dict.fromkeys(matched))
        if not matched:
            if why[0] != "left the volume":
                job.problem(why[0], record.where, why[1])
            continue
        spoken.update(matched)
        if record.attributes:
            for number in matched:
                pictures[number].records.append(record)
                if record.vase is not None and pictures[number].vase == pictures[number].found.name.lower():
                    pictures[number].vase = record.vase
        if record.turns:
            told = _tagged(record, tuple(matched), job)
            if told is not None:
                conversations.append(told)
    for number, picture in enumerate(pictures):
        if number not in spoken:
            job.problem("image without a row", picture.found.name, f"no annotation of vase {picture.vase}")
    return conversations


def _tagged(record: Record, matched: tuple[int, ...], job: _Job) -> Conversation | None:
    """The conversation with as many <image> tags as pictures: a lone picture's missing tag is put in front."""
    tags = sum(text.count(TAG) for role, text in record.turns if role == "user")
    turns = list(record.turns)
    if tags == 0 or tags > len(matched):
        turns = [(role, text.replace(TAG, "").strip()) for role, text in turns]
        first = next(number for number, (role, _) in enumerate(turns) if role == "user")
        if tags > len(record.images or matched):
            job.problem("too many image tags", record.where, f"{tags} tags and {len(record.images or matched)} images")
            return None
        turns[first] = ("user", TAG * len(matched) + turns[first][1])
    elif tags < len(matched):
        matched = matched[:tags]
    return Conversation(matched, tuple(turns), record.where)


def _split(pictures: list[Picture], conversations: list[Conversation], pairs: list[tuple[int, int]], job: _Job) -> None:
    marks: list[list[tuple[str, str]]] = [[("vase", picture.vase)] for picture in pictures]
    for conversation in conversations:
        for number in conversation.pictures:
            marks[number].append(("row", conversation.where))
    told = {number for conversation in conversations for number in conversation.pictures}
    grouped = splits.groups(len(pictures), marks, pairs)
    grouped = [group for group in grouped if any(pictures[number].records or number in told for number in group)]
    sides = splits.split(
        [len(group) for group in grouped], job.params["val_fraction"], job.params["eval_fraction"], job.params["seed"]
    )
    for group, side in zip(grouped, sides, strict=True):
        for number in group:
            pictures[number].side = side
    for side, fraction in (("eval", job.params["eval_fraction"]), ("val", job.params["val_fraction"])):
        if fraction and side not in sides:
            job.notes.append(f"{len(grouped)} groups of vases are too few for a split '{side}', which is empty")


def _rows(
    pictures: list[Picture], conversations: list[Conversation], questions: Questions, job: _Job, prefix: str
) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in FILES}
    system = [{"role": "system", "content": questions.system}] if questions.system else []

    def add(side: str, messages: list[dict[str, str]], images: list[str], vase: str, attribute: str) -> None:
        row: dict[str, Any] = {
            "messages": [*(system if messages[0]["role"] != "system" else []), *messages],
            "images": images,
            "vase_id": vase,
            "attribute": attribute,
        }
        answer = messages[-1]["content"]
        if side == "eval":
            rows["eval"].append({**row, "solution": answer})
            return
        rows["sft" if side == "train" else "val"].append(row)
        short = attribute != "caption" and sum(message["role"] == "user" for message in messages) == 1
        if side == "train" and short:
            rows["grpo"].append({**row, "messages": row["messages"][:-1], "solution": answer})

    for picture in pictures:
        known: dict[str, str] = {}
        for record in picture.records:
            for attribute, value in record.attributes.items():
                if known.setdefault(attribute, value) != value:
                    job.problem(
                        "contradiction",
                        record.where,
                        f"{attribute} of {picture.vase} is '{value}' here and '{known[attribute]}' before",
                    )
        # Drawn for the picture alone: another picture more or less changes nothing for this one.
        rng = random.Random(f"{job.params['seed']}-{picture.found.name}")
        asked = [
            attribute
            for attribute in known
            if attribute in questions.ask and (attribute != "caption" or job.params["include_captions"])
        ]
        chosen = {attribute: rng.choice(questions.ask[attribute]) for attribute in asked}
        short = [attribute for attribute in asked if attribute != "caption"]
        if job.params["max_questions"] is not None and len(short) > job.params["max_questions"]:
            kept = set(rng.sample(short, job.params["max_questions"]))
            asked = [attribute for attribute in asked if attribute in kept or attribute == "caption"]
        for attribute in asked:
            messages = [
                {"role": "user", "content": TAG + chosen[attribute]},
                {"role": "assistant", "content": known[attribute]},
            ]
            add(picture.side, messages, [f"{prefix}/{picture.found.name}"], picture.vase, attribute)
    for conversation in conversations:
        first = pictures[conversation.pictures[0]]
        messages = [{"role": role, "content": text} for role, text in conversation.turns]
        add(
            first.side,
            messages,
            [f"{prefix}/{pictures[number].found.name}" for number in conversation.pictures],
            first.vase,
            "",
        )
    return rows


def _write(
    rows: dict[str, list[dict[str, Any]]], pictures: list[Picture], prefix: str, output: Output, progress: Progress
) -> int:
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
    rows: dict[str, list[dict[str, Any]]],
    pictures: list[Picture],
    pairs: list[tuple[int, int]],
    job: _Job,
    output: Output,
    root: str,
) -> None:
    listed: dict[str, list[dict[str, str]]] = defaultdict(list)
    counts = Counter(problem.kind for problem in job.problems)
    for problem in job.problems:
        if len(listed[problem.kind]) < LISTED:
            listed[problem.kind].append({"where": problem.where, "what": problem.what})
    sides = {name: sorted({row["vase_id"] for row in rows[name]}) for name in ("sft", "val", "eval")}
    output.write_json(
        REPORT,
        {
            "image_root": root,
            "rows": {name: len(found) for name, found in rows.items()},
            "attributes": {
                name: dict(sorted(Counter(row["attribute"] or "conversation" for row in found).items()))
                for name, found in rows.items()
            },
            "vases": {name: len(found) for name, found in sides.items()},
            "vase_ids": sides,
            "images": len(pictures),
            "near_duplicates": [
                [pictures[one].found.name, pictures[other].found.name] for one, other in pairs[:LISTED]
            ],
            "near_duplicate_pairs": len(pairs),
            "problems": dict(sorted(counts.items())),
            "problem_list": dict(listed),
            "quarantined": job.quarantined,
            "notes": job.notes,
        },
    )
