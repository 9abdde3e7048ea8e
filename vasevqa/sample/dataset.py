"""Write a small labelled data set of drawn vases to disk.

The data set holds photographs to curate, labelled photographs for training, annotations, questions, and the true
properties of the photographs.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from vasevqa import files
from vasevqa.dataset.questions import load_questions
from vasevqa.errors import ConfigError
from vasevqa.sample.catalogue import Vase, invent, invent_balanced
from vasevqa.sample.photographing import DAMAGE, Shot, photograph

VERSION = 3  # increased when the code draws different pictures for the same settings
COLLECTIONS = ("london", "berlin", "münchen, antike")
VIEWS = ("front", "left", "back", "right", "top", "detail")
BROKEN = ("fragment", "cracks")  # kinds of damage that are the vase's own
# The other kinds of DAMAGE are the photograph's. Dark photographs are rarer, so that brightness alone doesn't separate
# the classes.
WEIGHTS = {"fragment": 4, "cracks": 4, "blur": 3, "dark": 1, "drawing": 3, "crop": 3}
POOR = tuple(kind for kind in DAMAGE if kind not in BROKEN)
VISIBLE = ("fabric", "technique", "shape")  # the attributes that the questions are about
MARKER, STAGING, LOCK = "sample.json", ".drawing", ".sample.lock"

OnProgress = Callable[[str, int, int], None]  # (what, done, total)


@dataclass(frozen=True)
class Settings:
    """The settings that determine a sample. The same settings give the same bytes."""

    vases: int = 170
    views: int = 3  # photographs per vase, 1 to 6
    quality_vases: int = 80  # labelled vases per class
    seed: int = 0
    size: int = 288  # length of each photograph's sides, in pixels


@dataclass(frozen=True)
class Job:
    """One photograph to draw. `name` is the path of the file, relative to the sample's folder."""

    name: str
    vase: Vase
    shot: Shot


def draw_sample(folder: Path, settings: Settings, on_progress: OnProgress | None = None) -> bool:
    """Draw a sample into `folder`. Return False if the folder already holds this sample.

    The sample consists of photos/, quality/0, quality/1, annotations.json, questions.yaml and truth.json. `sample.json`
    is written last and marks the sample as complete. If a call is interrupted while it draws, its files stay in
    `.drawing/`, and the next call draws them again. If an older version of this module drew the sample with the same
    settings, the sample is replaced. Files that the older version didn't write are kept.

    Raise ConfigError if the folder holds a sample with different settings, or files but no sample.
    """
    wanted = {"version": VERSION, **asdict(settings)}
    marker, staging = folder / MARKER, folder / STAGING
    if _settings(marker) == wanted:
        return False
    _check(folder, wanted)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        if _settings(marker) == wanted:  # meanwhile, another process has drawn the sample
            return False
        if _settings(staging / MARKER) != wanted:
            shutil.rmtree(staging, ignore_errors=True)
            _draw_all(staging, settings, wanted, on_progress or (lambda what, done, total: None))
        _publish(staging, folder)
    return True


def _read(marker: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(marker.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError:
        raise ConfigError(f"{marker} can't be read; remove {marker.parent}, or choose another folder.") from None
    return loaded if isinstance(loaded, dict) else {}


def _settings(marker: Path) -> dict[str, Any]:
    return {name: value for name, value in _read(marker).items() if name != "files"}


def _check(folder: Path, wanted: dict[str, Any]) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; choose another folder.")
    existing = _settings(folder / MARKER)
    for name, value in wanted.items():
        if existing and name != "version" and existing.get(name) != value:
            raise ConfigError(
                f"{folder} holds a sample with {name} = {existing.get(name)}, not {value}; remove the sample, or choose"
                " another folder."
            )
    if existing or (folder / STAGING).is_dir() or not folder.is_dir():
        return
    foreign = sorted(entry.name for entry in folder.iterdir() if entry.name not in (LOCK, "models"))
    if foreign:
        raise ConfigError(f"{folder} holds other files ({foreign[0]}); choose another folder.")


def _draw_all(staging: Path, settings: Settings, wanted: dict[str, Any], report: OnProgress) -> None:
    photos, vases = _photos(settings)
    jobs = [*photos, *_quality(settings)]
    for parent in {(staging / job.name).parent for job in jobs}:
        parent.mkdir(parents=True)
    pool = ThreadPoolExecutor(2)
    try:
        for done, _ in enumerate(
            pool.map(lambda job: (staging / job.name).write_bytes(photograph(job.vase, job.shot)), jobs), 1
        ):
            report("drawing", done, len(jobs))
    finally:
        pool.shutdown(cancel_futures=True)
    broken = _broken_files(staging, photos[0])
    files.write_json(staging / "annotations.json", [vase.annotation for vase in vases])
    files.write_text(staging / "questions.yaml", _questions())
    files.write_json(
        staging / "truth.json",
        [*map(_truth, photos), *({"name": name.removeprefix("photos/"), "quality": "unreadable"} for name in broken)],
    )
    files.write_json(
        staging / MARKER,
        {**wanted, "files": [*(job.name for job in jobs), *broken, "annotations.json", "questions.yaml", "truth.json"]},
        indent=None,
    )


def _questions() -> str:
    """Return the questions about attributes that a photograph of a drawn vase shows, as YAML for build-dataset."""
    ask = load_questions(None).ask
    lines = [f"{attribute}: {json.dumps(list(ask[attribute]))}" for attribute in VISIBLE]
    return "\n".join(["# A drawn vase doesn't show its provenance, its date or its painter.", *lines, ""])


def _truth(job: Job) -> dict[str, Any]:
    return {
        "name": job.name.removeprefix("photos/"),
        "quality": "intact" if job.shot.damage is None else "damaged" if job.shot.damage in BROKEN else "poor",
        "damage": job.shot.damage,
        "vase_id": job.vase.id,
        "shape": job.vase.shape,
        "technique": job.vase.technique,
        "fabric": job.vase.ware.fabric,
    }


def _publish(staging: Path, folder: Path) -> None:
    """Move the drawn files from `staging` to `folder`, and move the marker last. Remove files of an older sample.

    If a call is interrupted, the next call moves the remaining files.
    """
    if (folder / MARKER).exists():
        os.replace(folder / MARKER, staging / "replaced.json")
    drawn = _read(staging / MARKER)["files"]
    for name in set(_read(staging / "replaced.json").get("files", [])) - set(drawn):
        (folder / name).unlink(missing_ok=True)
    for name in drawn:
        if (staging / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / name, folder / name)
    os.replace(staging / MARKER, folder / MARKER)
    shutil.rmtree(staging)


def damage(rng: random.Random, kinds: Sequence[str] = DAMAGE) -> str:
    """Return one of the kinds of damage `kinds`, chosen at random with the weights WEIGHTS."""
    return rng.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]


def _photos(settings: Settings) -> tuple[list[Job], list[Vase]]:
    """Return the photographs to draw and their vases.

    Every fifth vase is broken, and all its photographs are good. The other vases are intact, and about 75% of their
    photographs are good. The classifier should therefore reject the poor photographs, and clip-filter the broken vases.
    """
    rng = random.Random(f"photos-{settings.seed}")
    balanced = invent_balanced(rng)
    jobs, vases = [], []
    for number in range(settings.vases):
        vase = next(balanced)
        vases.append(vase)
        broken = number % 5 == 4
        for view in range(settings.views):
            kind = rng.choice(BROKEN) if broken else damage(rng, POOR) if rng.random() < 0.25 else None
            shot = Shot(view * 360 / settings.views + rng.uniform(-15, 15), kind, rng.getrandbits(32), settings.size)
            jobs.append(Job(f"photos/{COLLECTIONS[number % len(COLLECTIONS)]}/{_file_name(vase, view)}", vase, shot))
    return jobs, vases


def _quality(settings: Settings) -> Iterator[Job]:
    """Yield labelled photographs of vases that are not in photos/: poor photographs for 0/, good photographs for 1/.

    Every fifth vase of 1/ is broken, because a good photograph may show a broken vase.
    """
    rng = random.Random(f"quality-{settings.seed}")
    for label in (0, 1):
        for number in range(settings.quality_vases):
            vase = invent(rng)
            for view in range(settings.views):
                kind = damage(rng, POOR) if label == 0 else rng.choice(BROKEN) if number % 5 == 4 else None
                shot = Shot(rng.uniform(0, 360), kind, rng.getrandbits(32), settings.size)
                yield Job(f"quality/{label}/{_file_name(vase, view)}", vase, shot)


def _file_name(vase: Vase, view: int) -> str:
    return f"{vase.id}_{VIEWS[view]}_ac001001.jpg"


def _broken_files(staging: Path, first: Job) -> list[str]:
    """Write broken files as they occur in real folders, and return their names.

    The files are a truncated photograph, an empty file, and a text file with the suffix .jpg. The reports of the
    pipeline must list these files with the reasons.
    """
    whole = (staging / first.name).read_bytes()
    broken = {
        "truncated.jpg": whole[: len(whole) // 2],
        "empty.jpg": b"",
        "notes.jpg": b"Photographed on a rainy day.\n",
    }
    names = [str(Path(first.name).with_name(name)) for name in broken]
    for name, content in zip(names, broken.values(), strict=True):
        (staging / name).write_bytes(content)
    return names
