"""Make the rows of a dataset in ms-swift's format, and read the rows for an evaluation."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from vasevqa import files
from vasevqa.dataset.annotations import Problem
from vasevqa.dataset.asked import attribute_of
from vasevqa.dataset.params import BuildParams
from vasevqa.dataset.report import DatasetReport
from vasevqa.dataset.row_checks import json_rows
from vasevqa.errors import ConfigError, DataError
from vasevqa.text import IMAGE_TAG

if TYPE_CHECKING:
    from vasevqa.dataset.join import Conversation, Picture
    from vasevqa.dataset.questions import Questions

FILES = {"sft": "sft.jsonl", "val": "val.jsonl", "grpo": "grpo.jsonl", "eval": "eval.jsonl"}


class Message(TypedDict):
    """One turn. `role` is system, user or assistant."""

    role: str
    content: str


class Row(TypedDict, total=False):
    """A row in ms-swift's format. ms-swift passes all columns except messages and images to the reward function."""

    messages: list[Message]
    images: list[str]  # relative to the report's image_root, in the order of their tags
    vase_id: str
    attribute: str  # empty for a conversation
    rights: str  # licence, rights holder, credit line and source of the row's content, if a table gives them
    solution: str  # the true answer, in rows for GRPO and evaluation


def make_rows(
    pictures: Sequence[Picture],
    conversations: Iterable[Conversation],
    questions: Questions,
    params: BuildParams,
    prefix: str,
    problems: list[Problem],
) -> dict[str, list[Row]]:
    """Return the rows for each file in `FILES`.

    The rows with a single question come first. Each of them asks for one known attribute of one picture. The rows with
    conversations come after them. The image paths in a row begin with `prefix`. If two records give different values
    for an attribute of a vase, the value of the first record is used, and the contradiction is added to `problems`.
    """
    rows: dict[str, list[Row]] = {name: [] for name in FILES}
    for picture in pictures:
        known = _known(picture, problems)
        for attribute, question in _asked(picture, known, questions, params).items():
            messages: list[Message] = [
                {"role": "user", "content": IMAGE_TAG + question},
                {"role": "assistant", "content": known[attribute]},
            ]
            row = _row(messages, questions, [f"{prefix}/{picture.file.name}"], picture.vase, attribute)
            _add(rows, picture, _with_rights(row, *(record.rights for record in picture.records)))
    for conversation in conversations:
        first = pictures[conversation.pictures[0]]
        messages = [Message(role=role, content=text) for role, text in conversation.turns]
        images = [f"{prefix}/{pictures[number].file.name}" for number in conversation.pictures]
        row = _row(messages, questions, images, first.vase, _asked_for(messages, questions))
        _add(rows, first, _with_rights(row, conversation.rights), questions)
    _fill_rights(rows)
    return rows


def _asked_for(messages: Sequence[Message], questions: Questions) -> str:
    """Return the attribute that the only question of a conversation asks for.

    Return "" if the conversation has several questions, or if the attribute is not clear.
    """
    texts = [message["content"] for message in messages if message["role"] == "user"]
    return attribute_of(texts[0], questions.ask) if len(texts) == 1 else ""


def _with_rights(row: Row, *told: Mapping[str, str]) -> Row:
    """Return the row with the column `rights`, or the same row if no record states any rights.

    `told` holds a mapping of rights for each record of the row. The rights are joined into one text, because programs
    that read rows need one type per column.
    """
    parts = dict.fromkeys(f"{name}: {text}" for rights in told for name, text in rights.items())
    return {**row, "rights": "; ".join(parts)} if parts else row


def _fill_rights(rows: Mapping[str, list[Row]]) -> None:
    """If any row has the column `rights`, add this column to the rows that lack it."""
    if any("rights" in row for side_rows in rows.values() for row in side_rows):
        for row in (row for side_rows in rows.values() for row in side_rows):
            row.setdefault("rights", "")


def _known(picture: Picture, problems: list[Problem]) -> dict[str, str]:
    """Return the known attributes of a picture. If several records give one attribute, the first record is used."""
    known: dict[str, str] = {}
    for record in picture.records:
        for attribute, value in record.attributes.items():
            if known.setdefault(attribute, value) != value:
                what = f"{attribute} of {picture.vase} is '{value}' here, but '{known[attribute]}' in an earlier record"
                problems.append(Problem("contradiction", record.where, what))
    return known


def _asked(picture: Picture, known: Iterable[str], questions: Questions, params: BuildParams) -> dict[str, str]:
    """Choose the attributes that are asked for, and return a randomly drawn question for each of them."""
    # The random numbers depend only on the seed and the picture's name, and not on other pictures.
    rng = random.Random(f"{params.seed}-{picture.file.name}")
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


def _add(rows: dict[str, list[Row]], picture: Picture, row: Row, questions: Questions | None = None) -> None:
    """Add a row to the files for the picture's part of the split.

    A training row with a single question that doesn't ask for a caption is also added to the rows for GRPO.
    """
    answer = row["messages"][-1]["content"]
    if picture.side == "eval":
        rows["eval"] += _single_turns(row, questions)
        return
    rows["sft" if picture.side == "train" else "val"].append(row)
    short = row["attribute"] != "caption" and sum(message["role"] == "user" for message in row["messages"]) == 1
    if picture.side == "train" and short:
        rows["grpo"].append({**row, "messages": row["messages"][:-1], "solution": answer})


def _single_turns(row: Row, questions: Questions | None) -> Iterator[Row]:
    """Yield one row for each question of a conversation, without the earlier questions and answers.

    The earlier answers are true answers, which the evaluated model must not read.
    """
    system = [turn for turn in row["messages"] if turn["role"] == "system"]
    turns = [turn for turn in row["messages"] if turn["role"] != "system"]
    tags = IMAGE_TAG * len(row["images"])
    for question, answer in zip(turns[::2], turns[1::2], strict=False):
        text = question["content"]
        if text.count(IMAGE_TAG) != len(row["images"]):
            text = tags + text.replace(IMAGE_TAG, "").strip()
        messages = [*system, Message(role=question["role"], content=text), answer]
        attribute = row["attribute"] or (attribute_of(question["content"], questions.ask) if questions else "")
        yield {**row, "messages": messages, "attribute": attribute, "solution": answer["content"]}


def image_root(dataset: Path, given: str | None) -> Path:
    """Return the folder to which image paths in rows are relative.

    The folder is `given` if it is set. Otherwise it is the image root in dataset_report.json. If there is no report, it
    is the dataset's own folder. Raise ConfigError if the folder `given` doesn't exist.
    """
    if given is not None:
        root = Path(given)
        if not root.is_dir():
            raise ConfigError(f"--image-root: there is no folder {given}; give an existing folder.")
        return root.absolute()
    report = DatasetReport.read(dataset)
    return Path(os.path.normpath(dataset.absolute() / (report.image_root if report else ".")))


def held_out(dataset: Path, root: Path) -> list[Row]:
    """Return the rows of eval.jsonl. The images of the rows lie below `root`.

    Raise DataError if there are no rows, or if a vase or an image of these rows also occurs in the rows for training or
    validation. Images are compared by name and by content.
    """
    rows = _read_rows(dataset / "eval.jsonl")
    if not rows:
        raise DataError(
            f"{dataset / 'eval.jsonl'} holds no rows; build the dataset with eval_fraction above 0 or with more vases."
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
                f"{dataset / 'eval.jsonl'}, row {number}: {row.get('vase_id') or row['images'][0]} is also in the"
                " training rows; build the dataset again."
            )
    twin = _same_content({image for row in rows for image in row["images"]}, seen_images, root)
    if twin is not None:
        raise DataError(
            f"{dataset / 'eval.jsonl'} names {twin[0]}, the same picture as {twin[1]} in the training rows; remove"
            " one of the two, and build the dataset again."
        )
    return rows


def _same_content(held: set[str], seen: set[str], root: Path) -> tuple[str, str] | None:
    """Return the names of a picture in `held` and a picture in `seen` that have the same bytes.

    Return None if there is no such pair.
    """

    def sized(names: set[str]) -> dict[int, list[str]]:
        by: dict[int, list[str]] = {}
        for name in sorted(names):
            path = root / name
            if path.is_file():
                by.setdefault(path.stat().st_size, []).append(name)
        return by

    training = sized(seen)
    for size, names in sized(held).items():
        if size in training:
            digests = {files.digest_file(root / name): name for name in training[size]}
            for name in names:
                twin = digests.get(files.digest_file(root / name))
                if twin is not None:
                    return name, twin
    return None


def training_rows(dataset: Path) -> list[Row]:
    """Return the rows of sft.jsonl, or [] if the dataset has no sft.jsonl."""
    path = dataset / FILES["sft"]
    return _read_rows(path) if path.is_file() else []


def _read_rows(path: Path) -> list[Row]:
    if not path.is_file():
        raise DataError(f"There is no {path.name} in {path.parent}; give the folder that build-dataset wrote.")
    rows = []
    for number, row in json_rows(path):
        try:
            row["messages"][-1]["content"], row["images"]
        except (KeyError, TypeError, IndexError):
            raise DataError(f"{path}, line {number} is not a row of a dataset; build the dataset again.") from None
        rows.append(row)
    return rows
