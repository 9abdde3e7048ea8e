"""`vasevqa review -n NAMESPACE` as a user at a shell meets it: labels are made here and copied to the volume."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.far import LocalFar
from tests.review import kit
from vasevqa.cli import cli
from vasevqa.errors import ClusterError, ConnectionLost, DataError
from vasevqa.pipeline.runs import Run
from vasevqa.review.distant import DistantReview
from vasevqa.review.labels import FILE
from vasevqa.review.session import Session

command = importlib.import_module("vasevqa.cli.review")  # the package has a command of this name too


@pytest.fixture
def in_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A run on a volume that only a pod mounts. The reviewer labels two photographs, the first one high."""
    monkeypatch.chdir(tmp_path)
    volume = tmp_path / "far"
    kit.per_vase(volume / "inputs/photos")
    scores = {f"V{vase + 1}/IMG_{view:04}.png": vase / 4 for vase in range(4) for view in range(3)}
    made = kit.filtered_run(volume, volume / "inputs/photos", scores)
    far = LocalFar(volume)

    def label(session: Session, request: object) -> None:
        for label in (session.record.question.yes, session.record.question.no):
            picture = session.state().picture
            assert picture is not None
            session.label(picture, label, 100)

    monkeypatch.setattr(command, "_reach", lambda request: (far, "cluster/namespace/claim"))
    monkeypatch.setattr(command, "_serve", label)
    yield made
    far.close()


def invoked(*words: str) -> Result:
    return CliRunner().invoke(cli, ["review", *words, "-n", "vases", "--pictures", "kept"])


def test_a_run_of_a_cluster_is_labelled_here_and_placed_there(in_cluster: Run, tmp_path: Path) -> None:
    result = invoked(in_cluster.name, "--into", "quality", "--who", "anna")
    assert result.exit_code == 0, result.output
    assert in_cluster.name in result.stdout
    assert "12 photographs, 4 vases, 3 views each" in result.stdout
    assert "0 new labels from labels/quality on the volume" in result.stdout
    assert "2 labels of anna; photographs of all reviewers: 1 high, 1 low" in result.stdout
    assert "2 labels were new in labels/quality on the volume; all are in quality/labels.jsonl too" in result.stdout
    assert "labels/quality/0 has 1 photographs, labels/quality/1 has 1" in result.stdout
    assert "Next: write `quality_data: labels/quality` under `inputs` of the recipe" in result.stdout
    assert "train_classifier" not in result.stdout  # the photographs aren't here
    assert "Pictures for the next review are kept in kept (" in result.stdout
    assert [name[:2] for name in kit.placed(tmp_path / "far/labels/quality")] == ["0/", "1/"]
    again = invoked(in_cluster.name, "--into", "elsewhere/quality", "--who", "ben")
    assert "2 new labels from labels/quality on the volume" in again.stdout
    assert "anna and ben gave the same label to 2 of 2 photographs" in again.stdout


def test_labels_that_did_not_reach_the_volume_are_taken_there_later(
    in_cluster: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:

        def fail(review: DistantReview) -> None:
            raise ConnectionLost("The connection to pod vasevqa-review-1 was lost; run the same command again.")

        broken.setattr(DistantReview, "give", fail)
        error = invoked(in_cluster.name, "--question", "intact", "--cluster", "my site.yaml").exception
    assert isinstance(error, ClusterError)
    assert error.exit_code == 69
    said = (
        f"`vasevqa review {in_cluster.name} -n vases --cluster 'my site.yaml' --question intact --into intact --sync`"
    )
    assert str(error).startswith("The labels are safe in intact/labels.jsonl, but were not copied to the volume (The")
    assert str(error).endswith(f"copy them with {said}.")
    assert not (tmp_path / "far/labels").exists()
    result = invoked(in_cluster.name, "--question", "intact", "--sync")
    assert result.exit_code == 0, result.output
    assert "2 labels were new in labels/intact on the volume" in result.stdout
    there, here = tmp_path / "far/labels/intact" / FILE, tmp_path / "intact" / FILE
    assert there.read_bytes() == here.read_bytes()
    assert len(here.read_text().splitlines()) == 2  # --sync opens no page


def test_labels_on_the_volume_choose_a_threshold(in_cluster: Run, tmp_path: Path) -> None:
    assert invoked(in_cluster.name, "--question", "intact").exit_code == 0
    result = invoked(in_cluster.name, "--question", "intact", "--into", "new/intact", "--calibrate", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["step"], found["labels"], found["photographs"], found["present"]) == ("clip-filter", 2, 12, 0.1)
    result = invoked(in_cluster.name, "--calibrate")
    assert isinstance(result.exception, DataError)
    assert "has no scores of classify" in str(result.exception)
