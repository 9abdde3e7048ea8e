"""`vasevqa why` tells what each step of a run decided about a photograph."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from tests import pictures
from tests.fakes import FolderOutput, RecordingProgress
from tests.report.kit import CURATED, RUN, curated
from vasevqa.cli import cli
from vasevqa.curation import embeddings
from vasevqa.curation.reports import FilteringReport
from vasevqa.errors import ConfigError
from vasevqa.spec import StageCall
from vasevqa.stages import clip_filter

ROOT = Path(__file__).parent.parent.parent
HIGH, LOW = ["a whole vase", "an intact vase"], ["a <sherd>", "a blurred photograph"]
ANGLES = {"V1_front.jpg": 0, "V1_back.jpg": 10, "V2_front.jpg": 30, "V2_back.jpg": 85, "v3/V3_front.jpg": 90}
SCORES = {"V1_front.jpg": 0.4, "V1_back.jpg": 0.3, "V2_front.jpg": 0.25, "V2_back.jpg": 0.1, "v3/V3_front.jpg": 0.05}
REPORTS: dict[str, dict[str, object]] = {
    "classify/classification_report.json": {
        "images": 6,
        "high": 5,
        "low": 1,
        "confidence_threshold": 0.6,
        "passed_over": [{"reason": ".txt", "count": 1, "names": ["notes.txt"]}],
    },
    "clip-filter/filtering_report.json": {
        "threshold": 0.2,
        "prompts": {"high": HIGH, "low": LOW},
        "images": [
            {
                "name": name,
                "score": score,
                "accepted": score >= 0.2,
                "high_similarity": 0.5,
                "low_similarity": 0.5 - score,
                "decided_by": "a whole vase" if score >= 0.2 else "a <sherd>",
            }
            for name, score in SCORES.items()
        ],
    },
    "select-views/best_views_report.json": {
        "named_by": ["id_view"],
        "vases": [
            {
                "vase": "v1",
                "best": "V1_front.jpg",
                "similarity": 0.5,
                "views": [
                    {"name": "V1_front.jpg", "view": "front", "similarity": 0.5},
                    {"name": "V1_back.jpg", "view": "back", "similarity": 0.375},
                ],
            },
            {"vase": "v2", "best": "V2_front.jpg", "similarity": 0.5},
        ],
        "lost": [{"vase": "v3", "lost_at": "clip-filter", "best": "v3/V3_front.jpg", "score": 0.05}],
    },
}


@pytest.fixture
def volume(volume_root: Path) -> Path:
    """A volume with a run that classified, filtered and chose views. The embeddings are unit vectors in a plane."""
    curated(volume_root, REPORTS)
    (volume_root / "runs" / RUN / "recipe.yaml").write_text("inputs: {images: photos}\n")
    rows = [f"{name},0.9,1" for name in ANGLES]
    table = "\n".join(["path,probability,class", *rows, "V4_front.jpg,0.3,0"])
    (volume_root / "artifacts/classify/k/predictions.csv").write_text(table)
    unread = {"quarantined": [{"name": "V5_front.jpg", "reason": "cut off"}]}
    (volume_root / "artifacts/classify/k/quarantined.json").write_text(json.dumps(unread))
    angles = torch.tensor(list(ANGLES.values())).deg2rad()
    features = 3 * torch.stack([angles.cos(), angles.sin()], dim=1)  # stored embeddings are not normalized
    output = FolderOutput(volume_root / "artifacts/clip-filter/k")
    embeddings.save(output.writing, embeddings.FILE, list(ANGLES), [""] * len(ANGLES), features, {})
    return volume_root


def ask(volume: Path, photograph: str, *more: str) -> str:
    result = CliRunner().invoke(cli, ["why", "--volume", str(volume), RUN[:15], photograph, *more])
    if result.exception is not None:
        raise result.exception
    return result.output


def asked(volume: Path, photograph: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ask(volume, photograph, "--json"))
    return found


def test_a_rejected_photograph_is_explained_with_the_deciding_prompt_and_its_nearest(volume: Path) -> None:
    assert ask(volume, "v2_back").splitlines() == [
        f"V2_back.jpg in {RUN}: rejected by clip-filter",
        "classify      high quality: the probability 0.9000 is at or above the threshold 0.6",
        "clip-filter   rejected: the score +0.1000 is below the threshold 0.2000",
        "              similarity 0.5000 to the descriptions of wanted photographs:",
        "                a whole vase",
        "                an intact vase",
        "              similarity 0.4000 to the descriptions of unwanted photographs:",
        "              * a <sherd>",
        "                a blurred photograph",
        "              * the most similar description on the deciding side",
        "select-views  another view of vase v2 was chosen: V2_front.jpg",
        "nearest accepted photographs (similarity, score, name):",
        "  0.5736  +0.2500  V2_front.jpg",
        "  0.2588  +0.3000  V1_back.jpg",
        "  0.0872  +0.4000  V1_front.jpg",
        "nearest rejected photographs (similarity, score, name):",
        "  0.9962  +0.0500  v3/V3_front.jpg",
    ]


@pytest.mark.parametrize(
    ("photograph", "state", "views"),
    [
        ("V1_front.jpg", "chosen by select-views", "the best view of vase v1"),
        (
            "V1_back.jpg",
            "not chosen by select-views",
            "another view of vase v1 was chosen, which is 0.1250 ahead: V1_front.jpg",
        ),
        ("V3", "rejected by clip-filter", "vase v3 lost every view; the last were lost at clip-filter"),
    ],
)
def test_the_choice_of_views_is_told(volume: Path, photograph: str, state: str, views: str) -> None:
    first, *lines = ask(volume, photograph).splitlines()
    assert first.endswith(f": {state}")
    assert f"select-views  {views}" in lines


def test_a_photograph_that_clip_filter_never_saw_has_no_neighbours(volume: Path) -> None:
    assert ask(volume, "V4_front.jpg").splitlines() == [
        f"V4_front.jpg in {RUN}: rejected by classify",
        "classify      low quality: the probability 0.3000 is below the threshold 0.6",
        "clip-filter did not score this photograph, so its nearest photographs are not known.",
    ]
    unread = asked(volume, "V5_front.jpg")
    assert unread["state"] == "set aside by classify"
    assert unread["set_aside"] == [{"step": "classify", "reason": "can't be read: cut off"}]
    assert asked(volume, "notes")["set_aside"] == [{"step": "classify", "reason": "passed over: .txt"}]


def test_json_holds_the_same(volume: Path) -> None:
    found = asked(volume, "V2_back.jpg")
    assert (found["run"], found["photograph"], found["state"]) == (RUN, "V2_back.jpg", "rejected by clip-filter")
    assert found["classify"] == {"high": True, "probability": 0.9, "threshold": 0.6}
    assert found["clip_filter"]["decided_by"] == "a <sherd>"
    assert found["clip_filter"]["prompts"] == {"high": HIGH, "low": LOW}
    assert [near["name"] for near in found["nearest_rejected"]] == ["v3/V3_front.jpg"]


def test_a_part_of_several_names_lists_them_and_an_unknown_name_is_refused(volume: Path) -> None:
    with pytest.raises(ConfigError, match=r"^2 photographs of .* \(V2_back.jpg, V2_front.jpg\); give more of the name"):
        ask(volume, "V2_")
    with pytest.raises(ConfigError, match=r"is called 'V9_front.jpg'\. Did you mean 'V\d_front.jpg'\?$"):
        ask(volume, "V9_front.jpg")
    for number in range(12):
        (volume / "artifacts/classify/k/predictions.csv").open("a").write(f"\nmany_{number:02}.jpg,0.9,1")
    with pytest.raises(ConfigError, match=r"^12 photographs .*many_09.jpg and 2 more\); give more"):
        ask(volume, "many")
    with pytest.raises(ConfigError, match=r"Give its path relative to the folder of the photographs"):
        ask(volume, "%%%")


def test_damaged_files_of_a_run_cost_only_what_they_held(volume: Path) -> None:
    (volume / "artifacts/clip-filter/k" / embeddings.FILE).write_bytes(b"no tensors")
    (volume / "artifacts/classify/k/predictions.csv").write_text("no,columns\n1,2\n")
    lines = ask(volume, "V1_front.jpg").splitlines()
    assert not any(line.startswith("classify") for line in lines)
    assert lines[-1] == "clip-filter's embeddings are missing or damaged, so the nearest photographs are not known."


def test_a_run_that_has_looked_at_nothing_yet_says_so(volume_root: Path) -> None:
    curated(volume_root, {"build-dataset/dataset_report.json": CURATED["build-dataset/dataset_report.json"]})
    (volume_root / "runs" / RUN / "recipe.yaml").write_text("")
    with pytest.raises(ConfigError, match="has looked at photographs yet"):
        ask(volume_root, "x")


def test_without_numpy_one_sentence_stands_for_the_neighbours(volume: Path) -> None:
    program = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'numpy', 'safetensors', 'torch'}: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from vasevqa.cli import main\n"
        "main()\n"
    )
    words = [sys.executable, "-c", program, "why", "--volume", str(volume), RUN, "V2_back.jpg"]
    result = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.splitlines()[-1] == (
        "The nearest photographs are left out, because numpy or safetensors is not installed here;"
        ' `pip install "vasevqa[curation]"` installs both.'
    )
    assert "* a <sherd>" in result.stdout


def test_the_embeddings_that_clip_filter_stores_are_read(volume_root: Path, hf_clip: Path, tmp_path: Path) -> None:
    for number in range(6):
        pictures.save(tmp_path / f"photos/{number}.jpg", number)
    pictures.photo(0).save(tmp_path / "photos/same.png")
    run = curated(volume_root, {"clip-filter/filtering_report.json": {}})
    (run / "recipe.yaml").write_text("")
    output = FolderOutput(volume_root / "artifacts/clip-filter/k")
    inputs = {"images": tmp_path / "photos", "clip_model": hf_clip}
    call = StageCall(
        clip_filter.Params(precision="fp32"), clip_filter.Options(device="cpu"), inputs, output, RecordingProgress()
    )
    clip_filter.run(call)
    report = FilteringReport.read(output.root)
    assert report is not None
    found = asked(volume_root, "0.jpg")
    near = [*found["nearest_accepted"], *found["nearest_rejected"]]
    assert max(near, key=lambda one: one["similarity"])["name"] == "same.png"
    assert {one["name"] for one in found["nearest_accepted"]} <= {row.name for row in report.images if row.accepted}
    assert found["clip_filter"]["decided_by"] in {row.decided_by for row in report.images}
