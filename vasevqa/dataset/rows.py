"""The rows of a dataset as ms-swift reads them: made, checked before a training, read for an evaluation."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from vasevqa.dataset.annotations import Problem
from vasevqa.dataset.params import BuildParams
from vasevqa.dataset.report import DatasetReport
from vasevqa.errors import ConfigError, DataError
from vasevqa.text import IMAGE_TAG

if TYPE_CHECKING:
    from vasevqa.dataset.join import Conversation, Picture
    from vasevqa.dataset.questions import Questions

FILES = {"sft": "sft.jsonl", "val": "val.jsonl", "grpo": "grpo.jsonl", "eval": "eval.jsonl"}


class Message(TypedDict):
    """One turn: `role` is system, user or assistant."""

    role: str
    content: str


class Row(TypedDict, total=False):
    """A row as ms-swift reads it. The columns beside messages and images reach the reward."""

    messages: list[Message]
    images: list[str]  # relative to the report's image_root, in the order of their tags
    vase_id: str
    attribute: str  # empty for a conversation
    solution: str  # the true answer, in rows for GRPO and evaluation


def make_rows(
    pictures: Sequence[Picture],
    conversations: Iterable[Conversation],
    questions: Questions,
    params: BuildParams,
    prefix: str,
    problems: list[Problem],
) -> dict[str, list[Row]]:
    """The rows of each of FILES: a question for every known attribute of every picture, then the conversations.

    A row names its images below `prefix`. Where two records contradict each other about a vase the first one holds, and
    the other is added to `problems`.
    """
    rows: dict[str, list[Row]] = {name: [] for name in FILES}
    for picture in pictures:
        known = _known(picture, problems)
        for attribute, question in _asked(picture, known, questions, params).items():
            messages: list[Message] = [
                {"role": "user", "content": IMAGE_TAG + question},
                {"role": "assistant", "content": known[attribute]},
            ]
            _add(rows, picture, _row(messages, questions, [f"{prefix}/{picture.found.name}"], picture.vase, attribute))
    for conversation in conversations:
        first = pictures[conversation.pictures[0]]
        messages = [Message(role=role, content=text) for role, text in conversation.turns]
        images = [f"{prefix}/{pictures[number].found.name}" for number in conversation.pictures]
        _add(rows, first, _row(messages, questions, images, first.vase, ""))
    return rows


def _known(picture: Picture, problems: list[Problem]) -> dict[str, str]:
    """What the records say of a picture's attributes; the first one to speak of an attribute is believed."""
    known: dict[str, str] = {}
    for record in picture.records:
        for attribute, value in record.attributes.items():
            if known.setdefault(attribute, value) != value:
                what = f"{attribute} of {picture.vase} is '{value}' here and '{known[attribute]}' before"
                problems.append(Problem("contradiction", record.where, what))
    return known


def _asked(picture: Picture, known: Iterable[str], questions: Questions, params: BuildParams) -> dict[str, str]:
    """The attributes that are asked for, each with the question that was drawn for it."""
    # Drawn for the picture alone: another picture more or less changes nothing for this one.
    rng = random.Random(f"{params.seed}-{picture.found.name}")
    chosen = {
        attribute: rng.choice(questions.ask[attribute])
        for attribute in known
        if attribute in questions.ask and (attribute != "caption" or params.include_captions)
    }
    short = [attribute for attribute in chosen if attribute != "caption"]
    if params.max_questions is None or len(short) <= params.max_questions:
        return chosen
    kept = {*rng.sample(short, params.max_questions), "caption"}
    return {attribute: question for attribute, question in chosen.items() if attribute in kept}


def _row(messages: list[Message], questions: Questions, images: list[str], vase: str, attribute: str) -> Row:
    if questions.system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": questions.system}, *messages]
    return {"messages": messages, "images": images, "vase_id": vase, "attribute": attribute}


def _add(rows: dict[str, list[Row]], picture: Picture, row: Row) -> None:
    """Add a row to the files of its picture's side; GRPO gets those that ask one thing with a short answer."""
    answer = row["messages"][-1]["content"]
    if picture.side == "eval":
        rows["eval"].append({**row, "solution": answer})
        return
    rows["sft" if picture.side == "train" else "val"].append(row)
    short = row["attribute"] != "caption" and sum(message["role"] == "user" for message in row["messages"]) == 1
    if picture.side == "train" and short:
        rows["grpo"].append({**row, "messages": row["messages"][:-1], "solution": answer})


def image_root(dataset: Path, given: str | None) -> Path:
    """The folder that the rows' image paths are relative to: as given, else as dataset_report.json says, else the
    dataset's own.
    """
    if given is not None:
        root = Path(given)
        if not root.is_dir():
            raise ConfigError(f"--image-root: there is no folder {given}.")
        return root.absolute()
    report = DatasetReport.read(dataset)
    return Path(os.path.normpath(dataset.absolute() / (report.image_root if report else ".")))


def check_rows(path: Path, root: Path, wanted: str | None = None) -> int:
    """The number of rows of a JSON-lines dataset, after reading each; DataError names the first line that won't do.

    Every row needs `messages` (or ShareGPT's conversations, or query and response) and, with `wanted`, that column; its
    images must exist.
    """
    if not path.is_file():
        raise DataError(f"There is no {path.name} in {path.parent}; give the folder that build-dataset wrote.")
    count = 0
    with path.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{where} is not valid JSON ({error}); build the dataset again.") from None
            if not isinstance(row, dict) or not (
                row.get("messages") or row.get("conversations") or (row.get("query") and row.get("response"))
            ):
                raise DataError(
                    f"{where} holds neither messages nor conversations nor query and response; ms-swift would drop it."
                )
            if wanted and not row.get(wanted):
                raise DataError(
                    f"{where} has no '{wanted}', which the reward compares answers with; build the dataset again."
                )
            images = row.get("images") or []
            for image in [images] if isinstance(images, str) else images:
                if not (root / str(image)).is_file():
                    raise DataError(
                        f"{where} names the image {image}, which is not in {root}; build the dataset again or give"
                        " --image-root."
                    )
            count += 1
    if not count:
        raise DataError(f"{path} holds no rows; see dataset_report.json beside it for what was left out.")
    return count


def held_out(dataset: Path) -> list[Row]:
    """The rows of eval.jsonl. DataError if one of its vases or images is in a file that training reads."""
    rows = _read_rows(dataset / "eval.jsonl")
    if not rows:
        raise DataError(
            f"{dataset / 'eval.jsonl'} holds no rows; build the dataset with an eval_fraction and more vases."
        )
    seen_vases: set[str] = set()
    seen_images: set[str] = set()
    for name in ("sft", "val", "grpo"):
        if (dataset / f"{name}.jsonl").is_file():
            for row in _read_rows(dataset / f"{name}.jsonl"):
                seen_vases.add(row.get("vase_id", ""))
                seen_images.update(row["images"])
    for number, row in enumerate(rows, 1):
        if set(row["images"]) & seen_images or (row.get("vase_id") and row["vase_id"] in seen_vases):
            raise DataError(
                f"{dataset / 'eval.jsonl'}, row {number}: {row.get('vase_id') or row['images'][0]} is in the training"
                " rows as well; build the dataset again."
            )
    return rows


def _read_rows(path: Path) -> list[Row]:
    if not path.is_file():
        raise DataError(f"There is no {path.name} in {path.parent}; give the folder that build-dataset wrote.")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            row["messages"][-1]["content"], row["images"]
        except (ValueError, KeyError, TypeError, IndexError):
            raise DataError(f"{path}, line {number} is not a row of a dataset; build the dataset again.") from None
        rows.append(row)
    return rows
