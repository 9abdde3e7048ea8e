"""The taught tiny Qwen2.5-VL is complete or missing, is never taught with vases of a sample, and learns no names of
classes.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from vasevqa.errors import ConfigError
from vasevqa.reward.vocabulary import load
from vasevqa.sample import teaching, tiny_qwen
from vasevqa.sample.catalogue import WARES, invent_balanced
from vasevqa.sample.dataset import Settings, draw_sample
from vasevqa.sample.lessons import CLAYS, GROUNDS, OUTLINES, SUBJECTS, look, vases_to_learn_from
from vasevqa.sample.shapes import SHAPES
from vasevqa.sample.teaching import Course, look_at, taught_on, teach_tiny_qwen

SHORT = Course(vases=2, looking=1, telling=1)
VASES = list(islice(invent_balanced(random.Random("lessons")), 40))


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taught") / "tiny-qwen"
    assert teach_tiny_qwen(folder, 7, SHORT)
    return folder


def test_the_taught_texts_contain_no_name_of_a_class() -> None:
    assert set(OUTLINES) == set(SHAPES)
    assert set(GROUNDS) == {ware.technique for ware in WARES}
    assert set(CLAYS) == {ware.fabric for ware in WARES}
    for vase in VASES:
        for asked in SUBJECTS:
            said = look(vase).say(asked)
            assert [load(kind).find(said) for kind in ("shape", "technique", "fabric")] == [[], [], []], said
            assert not {vase.shape, vase.technique, vase.ware.fabric.lower()} & set(said.lower().split())


def test_different_classes_are_described_differently() -> None:
    for words in (OUTLINES, GROUNDS, CLAYS):
        assert len(set(words.values())) == len(words)


def test_no_vase_of_a_sample_is_used_for_teaching(taught: Path, tmp_path: Path) -> None:
    draw_sample(tmp_path / "sample", Settings(vases=20, views=1, quality_vases=1, seed=7, size=96))
    drawn = {row["vase_id"] for row in json.loads((tmp_path / "sample/annotations.json").read_text())}
    assert len(drawn) == 20
    assert not drawn & {vase.id for vase in vases_to_learn_from(7, 1500)}
    assert taught_on(taught) == {vase.id for vase in vases_to_learn_from(7, 2)}


def test_a_taught_model_is_reused_and_the_same_seed_gives_the_same_weights(taught: Path, tmp_path: Path) -> None:
    assert teach_tiny_qwen(taught, 7, SHORT) is False
    assert teach_tiny_qwen(tmp_path / "again", 7, SHORT)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (taught, tmp_path / "again")]
    assert weights[0] == weights[1]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds files that are not from"):
        teach_tiny_qwen(tmp_path / "mine", 7, SHORT)


def test_a_killed_teaching_leaves_no_model_and_can_be_repeated(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from vasevqa.sample.teaching import Course,"
        " teach_tiny_qwen\nteach_tiny_qwen(Path(sys.argv[1]), 7, Course(2, 1, 1), lambda what, done, total:"
        " os.kill(os.getpid(), signal.SIGKILL) if what == 'learning to tell' else None)"
    )
    killed = subprocess.run([sys.executable, "-c", program, tmp_path / "q"], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "q").exists()
    assert teach_tiny_qwen(tmp_path / "q", 7, SHORT)
    assert [entry.name for entry in sorted(tmp_path.iterdir()) if entry.is_dir()] == ["q"]


def test_teaching_uses_the_same_tokens_as_later_use(taught: Path) -> None:
    """Teaching uses the patches, tokens and positions of the real processor and model."""
    model, processor = AutoModelForImageTextToText.from_pretrained(taught), AutoProcessor.from_pretrained(taught)
    pixels = torch.randint(0, 256, (1, 3, teaching.SIDE, teaching.SIDE), dtype=torch.uint8)
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe this vase."}]}]
    text = processor.apply_chat_template(turns, add_generation_prompt=True)
    batch = processor(text=[text], images=[pixels[0]], return_tensors="pt")
    theirs = model.model.visual(batch["pixel_values"], grid_thw=batch["image_grid_thw"]).pooler_output
    torch.testing.assert_close(look_at(model.model.visual, pixels)[0], theirs, atol=1e-4, rtol=1e-3)
    used = tiny_qwen.used_ids()
    talk = teaching.Talk(used)
    turn = talk.turn("Describe this vase.", "orange clay")
    assert [used[number] for number in turn.ids[: turn.answer]] == batch["input_ids"][0].tolist()
    positions, _ = model.model.get_rope_index(
        batch["input_ids"],
        image_grid_thw=batch["image_grid_thw"],
        mm_token_type_ids=(batch["input_ids"] == model.config.image_token_id).int(),
    )
    assert talk.positions(turn.answer).tolist() == positions[:, 0].tolist()
    weights = model.get_input_embeddings().weight
    assert not weights[sorted(set(range(len(weights))) - set(used))].any()
