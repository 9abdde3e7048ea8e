"""The README's `docker run` commands on small data, with the restrictions of a cluster; and a stop during a step."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import pictures
from tests.images.kit import STRICT, UID, Images
from tests.pipeline.kit import wait_for
from tests.test_examples import TRAINING, smaller
from vasevqa.sample.tiny_qwen import make_tiny_qwen

pytestmark = pytest.mark.timeout(900)
README = Path(__file__).parent.parent.parent / "README.md"


def documented() -> list[list[str]]:
    """Return the words of every `docker run ... vasevqa/<stage>` command of the README, in order."""
    lines = re.findall(r"^docker run .*$", README.read_text(encoding="utf-8"), re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def split(words: list[str]) -> tuple[list[str], str, list[str]]:
    """Split a command into Docker's options, the name of the image, and the arguments of the stage."""
    [at] = [number for number, word in enumerate(words) if word.startswith("vasevqa/")]
    return words[2:at], words[at].removeprefix("vasevqa/"), words[at + 1 :]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Path) -> Iterator[Path]:
    """A folder with data/. A user without a name may write to it."""
    root = tmp_path_factory.mktemp("chain")
    data = root / "data"
    pictures.vases(data / "photos", 4, 3)
    for label in (0, 1):
        pictures.vases(data / f"quality/{label}", 5, 2, first=100 * label)
    shutil.copytree(tiny_clip, data / "models/clip-vit-base-patch32")
    make_tiny_qwen(data / "models/Qwen2.5-VL-7B-Instruct")
    ids = sorted({path.name.split("_")[0] for path in (data / "photos").rglob("*.jpg")})
    (data / "annotations.json").write_text(
        json.dumps([{"vase_id": name, "shape": "kylix", "fabric": "Attic"} for name in ids])
    )
    for path in (data, *data.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o644)  # for any owner and any umask
    yield root
    shutil.rmtree(root, ignore_errors=True)


def test_the_documented_commands_work_one_after_the_other(images: Images, place: Path) -> None:
    seen = []
    for line in documented():
        options, name, words = split(line)
        assert "--rm" in options
        mounts = [word.replace("$PWD", str(place)) for word in options if word != "--rm"]
        small = shlex.split(smaller(shlex.join(words), name.replace("-", "_")))
        images.docker("run", "--rm", *STRICT, *mounts, images.reference(name), *small)
        seen.append(name)
    assert set(seen) >= {
        "train-classifier",
        "classify",
        "clip-filter",
        "select-views",
        "build-dataset",
        "sft",
        "merge",
        "grpo",
        "evaluate",
        "launcher",
    }
    data = place / "data"
    assert len(list((data / "filtered_vases/best_views").iterdir())) == 4
    assert (data / "merged-grpo/model.safetensors").is_file()
    assert (data / "evaluation/comparison.md").is_file()
    made = [
        path
        for folder in ("images3", "filtered_vases", "dataset", "sft", "merged-grpo", "evaluation")
        for path in (data / folder).rglob("*")
    ]
    assert {path.lstat().st_uid for path in made} == {UID}


def test_a_stop_is_quick_and_the_same_command_resumes(images: Images, place: Path) -> None:
    data = place / "data"
    if not (data / "dataset").is_dir():
        pytest.fail("the chain before this test made no dataset")
    words = [
        "--model",
        "/data/models/Qwen2.5-VL-7B-Instruct",
        "--dataset-dir",
        "/data/dataset",
        "--output-dir",
        "/data/stopped",
    ]
    # Enough steps, so that the training still runs when Docker stops it.
    words += shlex.split(TRAINING.replace("--max-steps 2", "--max-steps 60 --save-steps 2"))
    container = images.start("sft", *words, volume=data)
    wait_for((data / "stopped/training/checkpoint-4/trainer_state.json").exists, "the fourth step", 240)
    images.docker("stop", "--time", "60", container)
    state = images.docker("inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", container).stdout.split()
    log = images.docker("logs", container)
    assert state == ["75", "false"], log.stdout + log.stderr  # 137 would mean SIGKILL
    assert "run the same command again to resume" in log.stderr
    again = images.run("sft", *words, volume=data)
    assert re.search(r"resuming from checkpoint-\d+", again.stdout + again.stderr)
    assert json.loads((data / "stopped/training_summary.json").read_text())["last_checkpoint"] == "checkpoint-60"
    assert (data / "stopped/training/checkpoint-60/adapter_model.safetensors").is_file()
