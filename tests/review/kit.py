"""Small folders of photographs to review."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from vasevqa.artifacts.volume import Volume
from vasevqa.curation.reports import FilteringReport, ScoredImage
from vasevqa.dataset.collection import look_at
from vasevqa.files import write_json
from vasevqa.pipeline.runs import Run, new_run
from vasevqa.review.photographs import Photograph, photographs_of
from vasevqa.review.questions import QUALITY, Question
from vasevqa.review.record import Record, Shown

SHOWN = Shown("spread", 0.25)


def photo(path: Path, colour: int) -> None:
    """A picture that no other number gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 16), (colour % 256, colour // 256, 90)).save(path, "PNG")


def per_vase(folder: Path, vases: int = 4, views: int = 3) -> Path:
    """A folder for each vase, with camera names that repeat."""
    for vase in range(vases):
        for view in range(views):
            photo(folder / f"V{vase + 1}/IMG_{view:04}.png", 16 * vase + view)
    return folder


def listed(folder: Path) -> list[Photograph]:
    return photographs_of(look_at(folder))


def record(folder: Path, into: Path, question: Question = QUALITY) -> Record:
    return Record(into, question, listed(folder))


def say(record: Record, name: str, label: str | None, who: str = "anna") -> None:
    photograph = next(one for one in record.photographs if one.name == name)
    record.say(photograph, label, who, SHOWN, 1200)


def placed(into: Path) -> list[str]:
    """The files in 0/ and 1/."""
    return sorted(
        path.relative_to(into).as_posix() for side in "01" for path in (into / side).rglob("*") if path.is_file()
    )


def filtered_run(root: Path, images: Path, scores: Mapping[str, float]) -> Run:
    """A run of photographs on the volume `root`, whose clip-filter gave these scores."""
    volume = Volume(root)
    made = new_run(volume, "vases", f"name: vases\ninputs: {{images: {images}}}\nname_pattern: 'folder/view'\n", [])
    artifact = volume.artifact("clip-filter", "0" * 64)
    artifact.path.mkdir(parents=True, exist_ok=True)
    rows = [ScoredImage(name=name, score=value, accepted=value >= 0.1) for name, value in scores.items()]
    report = FilteringReport(threshold=0.1, images=rows)
    write_json(artifact.path / report.FILE, report.model_dump(mode="json", by_alias=True))
    made.link(artifact)
    return made
