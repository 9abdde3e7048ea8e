"""Rows of each accepted format pass through build-dataset, and ms-swift's own template adds the tokens of their
pictures.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.fakes import FolderOutput, RecordingProgress
from vasevqa.spec import StageCall
from vasevqa.stages import build_dataset

IDS = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(6)]
IMAGE_TOKEN, TOKENS = 151655, 16  # 112 x 112 pixels in patches of 14, merged 2 x 2


def original(folder: Path) -> Path:
    rows = [
        {
            "images": [f"{vase}_front_ac001001.jpg"],
            "caption": "An Attic kylix.",
            "conversations": [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A kylix."}],
        }
        for vase in IDS
    ]
    (folder / "a.json").write_text(json.dumps(rows))
    return folder / "a.json"


def sharegpt(folder: Path) -> Path:
    rows = [
        {
            "image": f"{vase}_front_ac001001.jpg",
            "conversations": [{"from": "human", "value": "Which shape?"}, {"from": "gpt", "value": "A kylix."}],
        }
        for vase in IDS
    ]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "a.jsonl"


def table(folder: Path) -> Path:
    with (folder / "a.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["vase_id", "shape", "fabric"], *([vase, "kylix", "Attic"] for vase in IDS)])
    return folder / "a.csv"


@pytest.fixture(scope="module")
def template(qwen: Path) -> Any:
    from swift.model import get_processor
    from swift.template import get_template

    found = get_template(get_processor(str(qwen), model_type="qwen2_5_vl"), template_type="qwen2_5_vl")
    found.set_mode("train")
    return found


@pytest.mark.parametrize("annotations", [original, sharegpt, table])
def test_each_image_tag_becomes_image_tokens(
    annotations: Any, tmp_path: Path, template: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from swift.dataset import load_dataset

    (tmp_path / "views").mkdir()
    for number, vase in enumerate(IDS):
        picture = Image.effect_noise((112, 112), 60 + number).convert("RGB")
        picture.save(tmp_path / f"views/{vase}_front_ac001001.jpg")
    output = FolderOutput(tmp_path / "volume/artifacts/build-dataset/k", volume=tmp_path / "volume")
    given = {"images": tmp_path / "views", "annotations": annotations(tmp_path)}
    build_dataset.run(
        StageCall(build_dataset.BuildParams(), build_dataset.BuildOptions(), given, output, RecordingProgress())
    )
    monkeypatch.setenv("ROOT_IMAGE_DIR", str(tmp_path / "volume"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for file in ("sft", "val", "eval"):
        rows, _ = load_dataset([str(output.root / f"{file}.jsonl")], load_from_cache_file=False)
        assert len(rows) == len((output.root / f"{file}.jsonl").read_text().splitlines())
        for row in rows:
            encoded = template.encode(row)
            assert encoded["input_ids"].count(IMAGE_TOKEN) == TOKENS
            assert encoded["pixel_values"].shape[0] == 4 * TOKENS
            answer = template.tokenizer.decode([token for token in encoded["labels"] if token != -100])
            assert answer.removesuffix("\n").removesuffix("<|im_end|>") in (
                "A kylix.",
                "An Attic kylix.",
                "kylix",
                "Attic",
            )
