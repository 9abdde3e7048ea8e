"""`vasevqa review` as a user at a shell meets it: what it says, how it ends, and what it refuses."""

from __future__ import annotations

import http.client
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.review import kit
from vasevqa.artifacts.volume import Volume
from vasevqa.cli import cli
from vasevqa.curation.reports import ClassificationReport, FilteringReport, ScoredImage
from vasevqa.errors import ConfigError, DataError
from vasevqa.files import write_json
from vasevqa.pipeline.calibrated import Calibration
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.runs import Run, new_run
from vasevqa.review.begin import open_review, source_of
from vasevqa.review.labels import FILE
from vasevqa.review.questions import INTACT, QUALITY
from vasevqa.review.record import Shown

command = importlib.import_module("vasevqa.cli.review")  # the package has a command of this name too
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with photographs of four vases."""
    monkeypatch.chdir(tmp_path)
    kit.per_vase(tmp_path / "photos")
    return tmp_path


@dataclass
class Reviewing:
    """A running review, asked as its page does."""

    process: subprocess.Popen[str]
    said: list[str]
    port: int
    headers: dict[str, str]

    def ask(self, method: str, path: str, body: object = None) -> tuple[http.client.HTTPResponse, str]:
        reply, content = self.fetch(method, path, body)
        return reply, content.decode()

    def fetch(self, method: str, path: str, body: object = None) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=240)
        connection.request(method, path, None if body is None else json.dumps(body), self.headers)
        reply = connection.getresponse()
        return reply, reply.read()

    def label(self, word: str) -> str:
        """Label the photograph that is shown, and return its name."""
        state = json.loads(self.ask("GET", "/state")[1])
        reply, _ = self.ask("POST", "/label", {"picture": state["picture"], "label": word, "milliseconds": 1})
        assert reply.status == 200
        return str(state["name"])

    def end(self, number: int) -> str:
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=240)
        return out


def entered(process: subprocess.Popen[str]) -> Reviewing:
    """Open the link that a review prints."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line.rstrip())
        if line.startswith("Open "):
            break
    found = re.fullmatch(r"Open http://127\.0\.0\.1:(\d+)(/\?token=\S+)", said[-1] if said else "")
    assert found is not None, said
    review = Reviewing(process, said, int(found[1]), {"Content-Type": "application/json"})
    review.headers["Cookie"] = review.ask("GET", found[2])[0].headers["Set-Cookie"].partition(";")[0]
    token = re.search('data-token="([^"]+)"', review.ask("GET", "/")[1])
    assert token is not None
    review.headers["X-Vasevqa"] = token[1]
    return review


@contextmanager
def reviewing(*words: str) -> Iterator[Reviewing]:
    """`vasevqa review` as a process, whose link was opened."""
    command = [sys.executable, "-m", "vasevqa.cli", "review", *words, "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        yield entered(process)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_review_well_and_the_same_command_resumes_it(here: Path, number: int) -> None:
    with reviewing("photos", "--into", "quality", "--who", "anna") as review:
        assert review.said[:2] == ["12 photographs, 4 vases, 3 views each", "vases told apart by folder/view"]
        names = [review.label(word) for word in ("high", "low", "high")]
        out = review.end(number)
        assert review.process.returncode == 0
    assert "3 labels of anna; photographs of all reviewers: 2 high, 1 low" in out
    assert "Next: python -m jobs.train_classifier --data-dir quality --output-dir models" in out
    assert kit.placed(here / "quality") == sorted(f"{label}/{name}" for label, name in zip("101", names, strict=True))
    with reviewing("photos", "--who", "anna") as again:
        assert json.loads(again.ask("GET", "/state")[1])["done"] == 3


def test_label_studio_and_another_reviewer_s_labels(here: Path) -> None:
    other = kit.record(here / "photos", here / "theirs")
    kit.say(other, "V1/IMG_0000.png", "low", "ben")
    task = {
        "data": {"image": "V1/IMG_0000.png"},
        "annotations": [
            {"result": [{"type": "choices", "value": {"choices": ["high"]}}], "completed_by": {"email": "eva@x.org"}}
        ],
    }
    write_json(here / "tasks.json", [task])
    words = ("photos", "--who", "anna", "--merge", f"theirs/{FILE}", "--label-studio", "tasks.json")
    with reviewing(*words) as review:
        assert f"1 new labels from theirs/{FILE}" in review.said
        assert "1 new labels from tasks.json" in review.said
        name = review.label("unsure")
        out = review.end(signal.SIGINT)
    assert "Wrote tasks.json." in out
    assert "1 disputed" in out
    assert "ben and eva@x.org gave the same label to 0 of 1 photographs of 1 vase" in out
    written = {one["data"]["image"]: one["annotations"] for one in json.loads((here / "tasks.json").read_text())}
    assert len(written["V1/IMG_0000.png"]) == 2
    assert written[f"/data/local-files/?d={name}"][0]["result"][0]["value"] == {"choices": ["unsure"]}


def error(*words: str) -> str:
    """The one sentence with which the command refuses."""
    result = CliRunner().invoke(cli, ["review", "--no-browser", *words])
    assert isinstance(result.exception, ConfigError | DataError), result.output
    sentence = str(result.exception)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def test_what_can_t_be_reviewed_is_one_sentence(here: Path) -> None:
    (here / "empty").mkdir()
    (here / "photos.zip").touch()
    assert "There is no folder nowhere, and no run on the volume volume" in error("nowhere")
    assert "There is no photograph in empty" in error("empty")
    assert "photos.zip is a file, not a folder" in error("photos.zip")
    assert "photos/quality lies in the folder of the photographs" in error("photos", "--into", "photos/quality")
    assert "photos.zip/labels can't be written (Not a directory)" in error("photos", "--into", "photos.zip/labels")
    assert "--who is empty" in error("photos", "--who", " ")
    assert "no table is given; add --annotations" in error("photos", "--vase-column", "Ort")
    assert "There is no table t.csv" in error("photos", "--annotations", "t.csv")
    assert "There is no file other.jsonl" in error("photos", "--merge", "other.jsonl")
    assert "matches none of 12 names" in error("photos", "--name-pattern", "(?P<vase>x)-(?P<view>y)")
    kit.say(kit.record(here / "photos", here / "labels", INTACT), "V1/IMG_0000.png", "intact")
    assert "give another folder as --into, or --question intact" in error("photos", "--into", "labels")
    (here / "tasks.json").write_text("[1]")
    assert "tasks.json is not Label Studio's JSON" in error("photos", "--label-studio", "tasks.json")


def test_a_table_tells_the_vases(here: Path) -> None:
    for number in range(4):
        kit.photo(here / f"flat/IMG_{number:04}.png", number)
    rows = [f"IMG_{number:04}.png,F{number // 2},amphora" for number in range(4)]
    (here / "t.csv").write_text("\n".join(["image,Fund,shape", *rows]))
    with reviewing("flat", "--annotations", "t.csv", "--vase-column", "Fund") as review:
        assert "t.csv gives the vases of 4 further photographs" in review.said
        assert json.loads(review.ask("GET", "/state")[1])["vase"] in ("f0", "f1")


def run(here: Path, text: str = "", scores: Mapping[str, float] | None = None, **steps: bool) -> Run:
    """A finished run of the photographs with results of classify and clip-filter."""
    volume = Volume(here / "volume")
    recipe = f"name: vases\ninputs: {{images: {here / 'photos'}}}\n{text}"
    made = new_run(volume, "vases", recipe, [])
    for step in (name.replace("_", "-") for name in steps):
        artifact = volume.artifact(step, "0" * 64)
        artifact.path.mkdir(parents=True)
        if step == "classify":
            lines = ["path,probability,class", "V1/IMG_0000.png,0.55,1", "V2/IMG_0000.png,0.999,1", "old.png,,1"]
            (artifact.path / "predictions.csv").write_text("\n".join(lines) + "\n")
            report = ClassificationReport(confidence_threshold=0.6)
        else:
            values = scores or {"V1/IMG_0000.png": 0.0}
            images = [ScoredImage(name=name, score=value, accepted=value >= 0.1) for name, value in values.items()]
            report = FilteringReport(threshold=0.1, images=images)
        write_json(artifact.path / report.FILE, report.model_dump(mode="json", by_alias=True))
        made.link(artifact)
    return made


def test_a_run_gives_photographs_and_scores(here: Path) -> None:
    made = run(here, "name_pattern: 'folder/view'", classify=True, clip_filter=True)
    source = source_of(made.name[:12], here / "volume", QUALITY, PIPELINE)
    assert source.folder == here / "photos"
    assert source.reading.name_pattern == "folder/view"
    assert source.scores is not None
    assert (dict(source.scores.values), source.scores.threshold) == (
        {"V1/IMG_0000.png": 0.55, "V2/IMG_0000.png": 0.999},
        0.6,
    )
    intact = source_of(made.name, here / "volume", INTACT, PIPELINE)
    assert intact.scores is not None
    assert (intact.scores.step, intact.scores.threshold) == ("clip-filter", 0.1)
    assert (source.scores.uniform, intact.scores.uniform) == (0.05, 0.5)
    said = open_review(source, QUALITY, here / "quality").said
    assert "shown first: photographs near the threshold 0.6 of classify" in said


def test_a_run_tells_which_photographs_are_typical(here: Path) -> None:
    made = run(here, clip_filter=True)
    table = "name,cluster,rank\nV1/IMG_0000.png,0,0\nV2/IMG_0000.png,0,1\nV3/IMG_0000.png,1,0\n"
    (made.artifacts()["clip-filter"] / "typical.csv").write_text(table)
    source = source_of(made.name, here / "volume", QUALITY, PIPELINE)
    opened = open_review(source, QUALITY, here / "quality")
    assert opened.groups["V2/IMG_0000.png"] == (0, 1)
    assert "shown first: typical photographs of 2 groups of look-alikes" in opened.said


def test_a_run_without_scores_is_reviewed_as_a_folder(here: Path) -> None:
    made = run(here)
    source = source_of(made.name, here / "volume", QUALITY, PIPELINE)
    assert source.scores is None
    assert len(open_review(source, QUALITY, here / "quality").record.photographs) == 12


def test_a_run_whose_photographs_are_elsewhere_says_so(here: Path) -> None:
    made = run(here)
    (here / "photos").rename(here / "moved")
    with pytest.raises(DataError, match=r"The photographs of .* are not on this machine"):
        source_of(made.name, here / "volume", QUALITY, PIPELINE)
    with pytest.raises(ConfigError, match="There is no run 'other'"):
        source_of("other", here / "volume", QUALITY, PIPELINE)


def calibrated(*words: str) -> Result:
    return CliRunner().invoke(cli, ["review", "--calibrate", *words])


@pytest.fixture
def labelled(here: Path) -> Run:
    """A run whose clip-filter scored 30 vases with two views, all of them labelled: the upper half is intact."""
    shutil.rmtree(here / "photos")
    kit.per_vase(here / "photos", 30, 2)
    scores = {f"V{vase + 1}/IMG_{view:04}.png": vase / 30 for vase in range(30) for view in range(2)}
    made = run(here, "name_pattern: 'folder/view'", scores=scores, clip_filter=True)
    drawn = kit.record(here / "photos", here / "intact", INTACT)
    for left, (name, score) in enumerate(scores.items()):
        photograph = next(one for one in drawn.photographs if one.name == name)
        drawn.say(photograph, "intact" if score >= 0.5 else "damaged", "anna", Shown("draw", 1 / (60 - left)), 900)
    return made


def test_labels_choose_a_threshold(here: Path, labelled: Run) -> None:
    result = calibrated(labelled.name, "--question", "intact", "--precision", "0.75")
    assert result.exit_code == 0, result.output
    assert "60 labels of 30 vases stand for 60 photographs of 30 vases that clip-filter scored" in result.stdout
    assert "A threshold of 0.5 reaches a precision of 0.75: 1.00 [0.80, 1.00]" in result.stdout
    assert "30 of 60 photographs and 15 of 30 vases are lost." in result.stdout
    assert result.stdout.endswith("In the recipe, below steps:\n  clip-filter: {threshold: 0.5}\n")
    [header] = [line for line in result.stdout.splitlines() if line.startswith("threshold")]
    assert header.split("  ")[0] == "threshold"
    assert re.search(r"^0\.1 \(now\) +0\.56 \[", result.stdout, re.MULTILINE)
    data = json.loads(calibrated(labelled.name, "--question", "intact", "--precision", "0.75", "--json").stdout)
    assert (data["chosen"], data["recipe"]) == (0.5, "clip-filter: {threshold: 0.5}")
    assert data["candidates"][0]["precision"]["value"] == pytest.approx(0.5)
    assert f"`vasevqa report {labelled.name}` shows these figures in the report." in result.stderr
    kept = labelled.calibration("clip-filter")
    assert json.loads(kept.read_text()) == {"schema": 1, **data}
    shown = Calibration.read(kept)
    assert shown is not None
    assert [one.threshold for one in shown.candidates] == [one["threshold"] for one in data["candidates"]]


def test_an_aim_that_the_labels_don_t_show_gives_no_line_for_the_recipe(here: Path, labelled: Run) -> None:
    result = calibrated(labelled.name, "--question", "intact")
    assert result.exit_code == 0, result.output
    assert "No threshold is shown to reach a precision of 0.95; what is shown is at least 0.80 at 0.5" in result.stdout
    assert "In the recipe" not in result.stdout


def test_what_can_t_be_calibrated_is_one_sentence(here: Path, labelled: Run) -> None:
    name = labelled.name
    assert "photos is a folder without scores" in error("photos", "--calibrate")
    assert "--json works only with --calibrate" in error("photos", "--json")
    assert "has no scores of classify; run this step first" in error(name, "--calibrate")
    assert "give another folder as --into, or --question intact" in error(name, "--calibrate", "--into", "intact")
    none = error(name, "--calibrate", "--question", "intact", "--into", "none")
    assert "No label gives a clear answer about a photograph that the review drew and clip-filter scored" in none
    other = kit.record(here / "photos", here / "studio", INTACT)
    other.say(other.photographs[0], "intact", "anna", Shown("Label Studio"), None)
    undrawn = error(name, "--calibrate", "--question", "intact", "--into", "studio")
    assert "(0 other answers, 0 unsure, 1 not drawn)" in undrawn


def test_calibration_needs_no_scientific_packages(here: Path, labelled: Run) -> None:
    """People review where no numpy and no scipy is installed."""
    absent = "import sys; sys.modules.update(dict.fromkeys(('numpy', 'scipy', 'torch', 'sklearn')))"
    words = ["review", labelled.name, "--calibrate", "--question", "intact"]
    code = f"{absent}; from vasevqa.cli import cli; cli({words!r})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "No threshold is shown" in result.stdout


def test_only_a_run_of_a_cluster_has_a_volume_to_take_labels_to(here: Path) -> None:
    assert "--sync works only with a run in a cluster; add -n NAMESPACE." in error("photos", "--sync")
    # photos is a folder on this machine
    assert "--sync works only with a run in a cluster" in error("photos", "--sync", "--cluster", "none.yaml")
    assert "photos/x is not the name of a run; with -n" in error("photos/x", "-n", "vases")
