"""Find the models, tables and labelled photographs beside a folder of photographs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vasevqa import model_formats
from vasevqa.curation.labels import WORDS, labelled_images
from vasevqa.errors import DataError, VaseError
from vasevqa.models import check_model

TABLES = (".csv", ".tsv", ".xlsx", ".parquet", ".json", ".jsonl")
MOST = 50 << 20  # bytes: larger tables are read only if the user names them
LISTED = 200  # maximum number of a folder's entries that are examined


@dataclass(frozen=True)
class FoundModel:
    """A model folder, the recipe's input that it fits, and the model's problem ('' if there is none)."""

    input: str
    path: Path
    problem: str = ""


def models_near(folders: Sequence[Path]) -> list[FoundModel]:
    """Return the models in `folders`, their subfolders `models` and Hugging Face's cache, complete models first."""
    places = [path for folder in folders for inner in (folder, folder / "models") for path in _folders(inner)]
    places += _cached()
    found = {path.resolve(): model for path in places if (model := _model(path)) is not None}
    return sorted(found.values(), key=lambda model: bool(model.problem))


def tables_near(folders: Sequence[Path]) -> list[Path]:
    """Return the files in `folders` that may be tables of vases, sorted by name. Subfolders are not searched."""
    found = [
        path
        for folder in dict.fromkeys(folders)
        for path in sorted(folder.iterdir())[:LISTED]
        if path.suffix.lower() in TABLES and not path.name.startswith((".", "~$")) and path.is_file()
    ]
    return [path for path in found if path.stat().st_size <= MOST]


def labels_near(folder: Path, photographs: Path) -> Path | None:
    """Return a folder in `folder` whose photographs are labelled by quality; None if there is none."""
    for path in _folders(folder):
        meanings = {WORDS.get(inner.name.casefold()) for inner in _folders(path)}
        if path.resolve() != photographs.resolve() and {0, 1} <= meanings:
            try:
                labelled_images(path)
            except DataError:
                continue
            return path
    return None


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in sorted(folder.iterdir())[:LISTED] if path.is_dir() and not path.name.startswith(".")]
    except OSError:
        return []


def _cached() -> Iterator[Path]:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface")
    for model in _folders(home / "hub"):
        yield from _folders(model / "snapshots")


def _model(path: Path) -> FoundModel | None:
    kind = _kind(path)
    if kind is None:
        return None
    try:
        if kind == "clip_model":
            model_formats.refuse_other_clip(path)
            if not any(path.glob("*.safetensors")):
                raise DataError(f"{path} holds no weights; fetch the model again.")
        else:
            check_model(path)
    except VaseError as error:
        return FoundModel(kind, path, str(error))
    return FoundModel(kind, path)


def _kind(path: Path) -> str | None:
    if (path / "open_clip_config.json").is_file():
        return "clip_model"
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        kind = config.get("model_type") if isinstance(config, dict) else None
    except (OSError, ValueError):
        return None
    return "clip_model" if kind == "clip" else "model" if kind in model_formats.COMMON else None
