"""A report finds the thumbnails of earlier reports again by the photographs' content."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests import pictures
from tests.report.kit import CURATED, curated
from vasevqa.artifacts.contents import RECORD, list_files
from vasevqa.artifacts.known import FOLDER
from vasevqa.artifacts.volume import Volume
from vasevqa.curation import images
from vasevqa.report.html import write_report


class Reports:
    """A run with photographs, of which `write` writes the report and counts the decoded photographs."""

    def __init__(self, volume_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.volume, self.run = volume_root, curated(volume_root, CURATED)
        self.decoded: list[str] = []
        self.filtered = volume_root / "artifacts/clip-filter/k"
        for view in range(5):
            side = "accepted" if view >= 2 else "rejected"
            pictures.save(self.filtered / side / f"a_{view}.jpg", view, (600, 400))
        decode = images.open_image

        def counted(path: Path, cover: int | None = None) -> Any:
            self.decoded.append(path.name)
            return decode(path, cover)

        monkeypatch.setattr(images, "open_image", counted)

    def write(self) -> str:
        self.decoded.clear()
        return write_report(self.run, Volume(self.volume)).read_text()


@pytest.fixture
def reports(volume_root: Path, monkeypatch: pytest.MonkeyPatch) -> Reports:
    return Reports(volume_root, monkeypatch)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_second_report_decodes_only_new_photographs(reports: Reports, recorded: bool) -> None:
    if recorded:  # a complete artifact, whose record holds the digests
        (reports.filtered / RECORD).write_text(json.dumps({"files": list_files(reports.filtered)}))
    first = reports.write()
    assert sorted(reports.decoded) == [f"a_{view}.jpg" for view in range(5)]  # though some are shown several times
    again = reports.write()
    assert reports.decoded == []
    assert again.count("data:image/jpeg") == first.count("data:image/jpeg") > 5
    pictures.save(reports.filtered / "rejected/a_0.jpg", 9, (600, 400))
    if recorded:
        (reports.filtered / RECORD).write_text(json.dumps({"files": list_files(reports.filtered)}))
    changed = reports.write()
    assert reports.decoded == ["a_0.jpg"]
    assert changed != again


def test_a_thumbnail_is_sharp_on_a_screen_with_double_density(reports: Reports) -> None:
    found = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", reports.write())
    sizes = {Image.open(io.BytesIO(base64.b64decode(one))).size for one in found}
    assert sizes == {(240, 160)}


def test_a_damaged_store_and_one_that_cannot_be_written_cost_only_time(reports: Reports) -> None:
    first = reports.write()
    [store] = (reports.volume / FOLDER).glob("report-*")
    store.write_text("This is no database.\n" * 200)
    assert reports.write().count("data:image/jpeg") == first.count("data:image/jpeg")
    assert "a_0.jpg" in reports.decoded
    shutil.rmtree(reports.volume / ".cache")
    (reports.volume / ".cache").write_text("a file in the place of the folder")
    assert reports.write().count("data:image/jpeg") == first.count("data:image/jpeg")
