"""The order of photographs by how typical they are for their cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import pictures
from tests.fakes import FolderOutput, RecordingProgress
from vasevqa.curation import typical
from vasevqa.spec import StageCall
from vasevqa.stages import clip_filter

ROOT = Path(__file__).parent.parent.parent
NO_SCIENCE = """
import json, sys
from pathlib import Path
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"numpy", "torch", "torchvision", "scipy", "sklearn", "PIL"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from vasevqa.curation import typical
print(json.dumps(typical.read(Path(sys.argv[1]))))
"""


def groups(*sizes: int, seed: int = 0) -> np.ndarray:
    """Return embeddings in groups of these sizes around different axes. The first one of a group is its middle."""
    rng = np.random.default_rng(seed)
    found = []
    for axis, size in enumerate(sizes):
        centre = np.eye(8)[axis]
        offsets = rng.normal(0, 0.02, (size // 2, 8))
        found.append(centre + np.concatenate([np.zeros((1, 8)), offsets, -offsets]))
    return np.concatenate(found).astype(np.float32)


def test_the_middle_of_each_group_comes_first_and_the_largest_group_has_number_one() -> None:
    places = typical.order(groups(4, 10, 6), 3, 0)
    assert [places[index] for index in (0, 5, 16)] == [(3, 1), (1, 1), (2, 1)]
    assert sorted(places[5:16]) == [(1, rank) for rank in range(1, 12)]
    assert places == typical.order(groups(4, 10, 6), 3, 0)


def test_the_length_of_an_embedding_does_not_count() -> None:
    features = groups(4, 10, 6)
    scaled = features * np.linspace(1, 50, len(features), dtype=np.float32)[:, None]
    assert typical.order(scaled, 3, 0) == typical.order(features, 3, 0)


@pytest.mark.filterwarnings("error")
def test_equal_and_few_photographs_have_fewer_clusters() -> None:
    assert typical.order(np.ones((3, 4), np.float32), 3, 0) == [(1, 1), (1, 2), (1, 3)]
    assert typical.order(np.ones((1, 4), np.float32), 1, 0) == [(1, 1)]


def test_there_are_as_many_clusters_as_vases_and_at_most_twenty(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [pictures.vase_name(vase, view) for vase in range(3) for view in range(4)]
    typical.write(FolderOutput(tmp_path), names, rng.normal(size=(12, 8)), 0)
    assert {cluster for cluster, _ in typical.read(tmp_path).values()} == {1, 2, 3}
    names = [f'{number}, "a".jpg' for number in range(50)]  # names that tell no vase
    typical.write(FolderOutput(tmp_path), names, rng.normal(size=(50, 8)), 0)
    found = typical.read(tmp_path)
    assert found.keys() == set(names)
    assert len({cluster for cluster, _ in found.values()}) == 20
    lines = (tmp_path / typical.FILE).read_text().splitlines()
    assert lines[0] == "name,cluster,rank"
    assert [line.rpartition(",")[2] for line in lines[1:21]] == ["1"] * 20  # the most typical of each cluster first


def test_reading_needs_no_science_and_tolerates_other_files(tmp_path: Path) -> None:
    assert typical.read(tmp_path) == {}
    assert typical.read(tmp_path / "missing") == {}
    (tmp_path / typical.FILE).write_text("name,cluster,rank\na.jpg,2,1\nb.jpg,x,1\nc.jpg\n,1,1\n")
    assert typical.read(tmp_path) == {"a.jpg": (2, 1)}
    words = [sys.executable, "-c", NO_SCIENCE, str(tmp_path)]
    result = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {"a.jpg": [2, 1]}


def test_clip_filter_orders_every_photograph_that_it_scored(tiny_clip: Path, tmp_path: Path) -> None:
    pictures.vases(tmp_path / "photos", 4, 3)
    (tmp_path / "photos/text.png").write_text("not an image")
    inputs = {"images": tmp_path / "photos", "clip_model": tiny_clip}
    for out in ("one", "two"):
        params = clip_filter.Params(precision="fp32")
        options = clip_filter.Options(device="cpu", batch_size=4)
        call = StageCall(params, options, inputs, FolderOutput(tmp_path / out), RecordingProgress())
        clip_filter.run(call)
    found = typical.read(tmp_path / "one")
    assert found.keys() == {path.name for path in (tmp_path / "photos").glob("*.jpg")}  # also the rejected ones
    assert {cluster for cluster, _ in found.values()} == {1, 2, 3, 4}
    assert found == typical.read(tmp_path / "two")
