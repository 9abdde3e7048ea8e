"""The rows of a dataset as ms-swift reads them: checked before a training, read for an evaluation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from vasevqa.errors import ConfigError, DataError


def image_root(dataset: Path, given: str | None) -> Path:
    """The folder that the rows' image paths are relative to: as given, else as dataset_report.json says, else the
    dataset's own.
    """
    if given is not None:
        root = Path(given)
        if not root.is_dir():
            raise ConfigError(f"--image-root: there is no folder {given}.")
        return root.absolute()
    report = dataset / "dataset_report.json"
    noted = json.loads(report.read_text(encoding="utf-8")).get("image_root", ".") if report.is_file() else "."
    return Path(os.path.normpath(dataset.absolute() / noted))


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


def held_out(dataset: Path) -> list[dict[str, Any]]:
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


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"There is no {path.name} in {path.parent}; give the folder that build-dataset wrote.")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            row["messages"][-1]["content"], row["images"]
        except (ValueError, KeyError, TypeError, IndexError):
            raise DataError(f"{path}, line {number} is no row of a dataset; build the dataset again.") from None
        rows.append(row)
    return rows
