"""evaluate from the user's view: models on held-out rows, caption files, and messages about missing inputs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from tests.evaluation.conftest import SHAPES, Copying, run
from vasevqa.artifacts.volume import Volume
from vasevqa.cli.display import sentence
from vasevqa.errors import ConfigError, DataError, DeviceError
from vasevqa.evaluation import generation
from vasevqa.evaluation.generation import Answer
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.plan import make_plan
from vasevqa.pipeline.recipe import load_recipe
from vasevqa.pipeline.selection import Selection
from vasevqa.sample.tiny_qwen import make_tiny_qwen


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "dataset"
    (folder / "images").mkdir(parents=True)
    rows: dict[str, list[dict[str, Any]]] = {"sft": [], "eval": []}
    for number in range(8):
        name = f"images/{number}.jpg"
        Image.effect_noise((112, 112), 40 + number).convert("RGB").save(folder / name)
        for attribute, answer in (
            ("shape", SHAPES[number % 3]),
            ("date", "525-475 BCE"),
            ("caption", f"An Attic {SHAPES[number % 3]}, number {number}."),
        ):
            messages = [
                {"role": "user", "content": f"<image>What is the {attribute}?"},
                {"role": "assistant", "content": answer},
            ]
            row = {
                "messages": messages,
                "images": [name],
                "vase_id": f"v{number}",
                "attribute": attribute,
                "solution": answer,
            }
            rows["eval" if number < 6 else "sft"].append(row)
    for file, found in rows.items():
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return folder


def test_real_models_answer_questions_and_are_compared(
    tmp_path: Path, qwen: Path, dataset: Path, tiny_clip: Path
) -> None:
    other = tmp_path / "merged"
    make_tiny_qwen(other, seed=1)
    found, _ = run(tmp_path / "out", {"dataset": dataset, "base": qwen, "sft": other, "clip_model": tiny_clip})
    assert set(found["models"]) == {"base", "sft"}
    assert found["samples"] == 18
    for name in ("base", "sft"):
        model = found["models"][name]
        assert set(model["attributes"]) == {"shape", "date"}
        assert model["attributes"]["date"]["interval_iou"]["samples"] == 6
        captions = model["captions"]
        assert captions["recall_at_1"]["chance"] == pytest.approx(1 / 6)
        assert captions["recall_at_1"]["target"].startswith("picture")
        assert "there are 6" in captions["recall_at_10"]["reason"]
        assert "no sentence model" in captions["semantic_similarity"]["reason"]
        assert captions["overall"]["value"] is None
        answers = json.loads((tmp_path / f"out/answers-{name}.json").read_text())
        assert len(answers) == 18
        assert answers[0]["question"].startswith("<image>What is the")
        written = json.loads((tmp_path / f"out/captions-{name}.json").read_text())
        assert [set(row) for row in written] == [{"images", "caption", "data_by"}] * 6
    table = (tmp_path / "out/comparison.md").read_text()
    assert "| metric | base | sft | majority | constant | vases | rows | chance |" in table
    assert "sft - base = " in table
    assert "too few vases for an interval (6 vases; at least 8 are needed)" in table
    assert "the query is the generated caption, the target is the picture" in table
    assert "captions: recall at 10: R@10 needs more than 10 vases" in table
    assert (tmp_path / "out/comparison.png").read_bytes().startswith(b"\x89PNG")


def test_batches_give_the_same_answers_as_single_rows(tmp_path: Path, qwen: Path, dataset: Path) -> None:
    answers = []
    for size in (1, 7):
        run(tmp_path / str(size), {"dataset": dataset, "base": qwen}, {"batch_size": size})
        answers.append(json.loads((tmp_path / str(size) / "answers-base.json").read_text()))
    sure = [[one.pop("probability") for one in told] for told in answers]
    assert sure[0] == pytest.approx(sure[1], abs=2e-6)
    assert answers[0] == answers[1]


def test_a_model_that_copies_the_truth_gets_perfect_scores(
    tmp_path: Path, qwen: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "TransformersAnswers", Copying)
    found, _ = run(tmp_path / "out", {"dataset": dataset, "grpo": qwen})
    model = found["models"]["grpo"]
    assert model["rewards"]["value"] == 1
    assert all(metric["value"] == 1 for measured in model["attributes"].values() for metric in measured.values())
    assert model["captions"]["bleu_4"]["value"] == pytest.approx(1)
    assert model["captions"]["lexical_similarity"]["value"] == 1


def test_generation_resumes_after_a_kill(
    tmp_path: Path, qwen: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying(Copying):
        asked: ClassVar[list[int]] = []

        def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            self.asked.append(len(rows))
            return super().__call__(rows)

    monkeypatch.setattr(generation, "TransformersAnswers", Dying)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", {"dataset": dataset, "base": qwen})
    kept = tmp_path / "out/answers-base.jsonl"
    assert len(kept.read_text().splitlines()) == 8
    kept.write_text(kept.read_text() + '{"row": "half')
    counted: list[int] = []

    class Counting(Copying):
        def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
            counted.append(len(rows))
            return super().__call__(rows)

    monkeypatch.setattr(generation, "TransformersAnswers", Counting)
    found, progress = run(tmp_path / "out", {"dataset": dataset, "base": qwen})
    assert sum(counted) == 10
    assert found["models"]["base"]["rewards"]["value"] == 1
    assert progress.done == 18
    run(tmp_path / "out", {"dataset": dataset, "base": qwen})
    assert sum(counted) == 10, "a question was asked twice"
    make_tiny_qwen(tmp_path / "another", seed=3)
    run(tmp_path / "out", {"dataset": dataset, "base": tmp_path / "another"})
    assert sum(counted) == 28, "another model in the same folder must answer again"


def test_a_skipped_grpo_is_reported_and_not_evaluated_twice(
    tmp_path: Path, qwen: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "TransformersAnswers", Copying)
    found, progress = run(tmp_path / "out", {"dataset": dataset, "sft": qwen, "grpo": qwen})
    assert found["same"] == {"grpo": "sft"}
    assert list(found["models"]) == ["sft"]
    assert "grpo is the same model as sft" in progress.notes[0]
    assert "grpo is the same model as sft" in (tmp_path / "out/comparison.md").read_text()


def test_skipped_steps_pass_on_the_inputs_of_evaluate(tmp_path: Path) -> None:
    for name in (
        "photos/a_front.jpg",
        *(f"quality/{label}/{vase}{label}_front.jpg" for label in (0, 1) for vase in "xyz"),
        "clip/config.json",
        "qwen/config.json",
        "annotations.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    inputs = (
        "inputs: {images: photos, quality_data: quality, clip_model: clip, model: qwen, annotations:"
        " annotations.json}\n"
    )
    (tmp_path / "recipe.yaml").write_text(inputs + "skip: [grpo, merge-grpo]\n")
    plan = make_plan(
        load_recipe(tmp_path / "recipe.yaml", PIPELINE), PIPELINE, Volume(tmp_path / "volume"), Selection()
    )
    last = next(step for step in plan.steps if step.name == "evaluate")
    assert last.inputs["grpo"].value == last.inputs["sft"].value
    (tmp_path / "recipe.yaml").write_text(inputs + "skip: [evaluate]\n")
    plan = make_plan(
        load_recipe(tmp_path / "recipe.yaml", PIPELINE), PIPELINE, Volume(tmp_path / "volume"), Selection()
    )
    assert "evaluate" not in [step.name for step in plan.steps]
    assert "evaluate" in plan.skipped
    said = sentence({"event": "run-started", "time": 0.0, "skipped": dict(plan.skipped)})
    assert said == "evaluate: skipped: passes through its grpo"


def test_any_json_with_one_truth_is_a_valid_solution(
    tmp_path: Path, qwen: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "TransformersAnswers", Copying)
    path = dataset / "eval.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["solution"] = {"role": "assistant", "content": row["solution"]}
    rows[1]["solution"] = -450
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, _ = run(tmp_path / "out", {"dataset": dataset, "grpo": qwen})
    assert found["models"]["grpo"]["rewards"]["value"] == 1
    rows[2]["solution"] = ["An amphora.", "A neck amphora."]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"eval\.jsonl, row 3: the solution holds 2 answers .An amphora"):
        run(tmp_path / "again", {"dataset": dataset, "grpo": qwen})


def test_rows_of_other_programs_need_no_attribute_and_may_end_with_the_question(
    tmp_path: Path, qwen: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "TransformersAnswers", Copying)
    path = dataset / "eval.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        del row["attribute"]
        row["messages"] = row["messages"][:1]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, _ = run(tmp_path / "out", {"dataset": dataset, "grpo": qwen})
    assert found["models"]["grpo"]["attributes"]["conversation"]["reward"]["value"] == 1
    answers = json.loads((tmp_path / "out/answers-grpo.json").read_text())
    assert {row["question"] for row in answers} == {
        f"<image>What is the {name}?" for name in ("shape", "date", "caption")
    }


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda rows: [json.dumps({**json.loads(rows[0]), "images": []})], "row 1: a picture, or a turn's role"),
        (lambda rows: [json.dumps({**json.loads(rows[0]), "messages": [{"content": "x"}]})], "row 1: a picture, or a"),
        (lambda rows: [*rows, json.dumps({**json.loads(rows[0]), "vase_id": "v7"})], "v7 is also in the training rows"),
        (
            lambda rows: [*rows, json.dumps({**json.loads(rows[0]), "vase_id": "new", "images": ["images/6.jpg"]})],
            "new is also in the training rows",
        ),
        (lambda rows: [*rows, "{"], "line 19 is not valid JSON"),
        (lambda rows: [], "holds no rows"),
    ],
)
def test_held_out_vases_must_not_be_in_the_training_rows(
    spoil: Any, said: str, tmp_path: Path, qwen: Path, dataset: Path
) -> None:
    path = dataset / "eval.jsonl"
    path.write_text("\n".join(spoil(path.read_text().splitlines())))
    with pytest.raises(DataError, match=said):
        run(tmp_path / "out", {"dataset": dataset, "base": qwen})


def test_missing_inputs_are_reported(tmp_path: Path, qwen: Path, dataset: Path) -> None:
    for inputs, kind, said in (
        ({"base": qwen}, ConfigError, "needs either --dataset-dir"),
        ({"dataset": dataset}, ConfigError, "needs a model"),
        ({"dataset": tmp_path, "base": qwen}, DataError, r"no eval\.jsonl"),
        ({"dataset": dataset, "base": dataset}, ConfigError, r"no config\.json"),
        ({"captions": dataset}, ConfigError, "needs --reference"),
        ({"dataset": dataset, "base": qwen, "sentence_model": dataset}, ConfigError, "is not a sentence model"),
    ):
        with pytest.raises(kind, match=said):
            run(tmp_path / "out", inputs)
    with pytest.raises(DeviceError, match="cuda:3"):
        run(tmp_path / "out", {"dataset": dataset, "base": qwen}, {"device": "cuda:3"})
    with pytest.raises(ConfigError, match="needs the package vllm"):
        run(tmp_path / "fresh", {"dataset": dataset, "base": qwen}, engine="vllm")
    broken = tmp_path / "broken"
    shutil.copytree(dataset, broken)
    (broken / "images/0.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"images/0\.jpg can't be read"):
        run(tmp_path / "fresh", {"dataset": broken, "base": qwen})


def test_a_picture_that_was_damaged_after_generation_is_reported(
    tmp_path: Path, qwen: Path, dataset: Path, tiny_clip: Path
) -> None:
    """The answers are kept, so only CLIP opens the picture."""
    inputs = {"dataset": dataset, "base": qwen, "clip_model": tiny_clip}
    run(tmp_path / "out", inputs)
    (dataset / "images/0.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"images/0\.jpg can't be read \(not an image\); build the dataset again"):
        run(tmp_path / "out", inputs)


def tiny_sentence_model(folder: Path) -> Path:
    """Write a small BERT with random weights."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {
        word: number
        for number, word in enumerate(["[UNK]", "[PAD]", "an", "attic", "vase", *SHAPES, "0", "1", "2", "3", "4", "5"])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(vocabulary), hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
        )
    ).save_pretrained(folder)
    return folder


def caption_file(path: Path, captions: Sequence[tuple[list[str], str]], data_by: str | None = None) -> Path:
    path.parent.mkdir(exist_ok=True)
    rows = [
        {"images": images, "caption": caption, **({"data_by": data_by} if data_by else {})}
        for images, caption in captions
    ]
    path.write_text(json.dumps(rows))
    return path


def test_caption_files_are_compared_without_models(tmp_path: Path) -> None:
    truth = [
        ([f"/data/photos/{number}.jpg"], f"An Attic {SHAPES[number % 3]}, number {number}.") for number in range(12)
    ]
    reference = caption_file(tmp_path / "truth.json", truth, "human")
    caption_file(
        tmp_path / "models/copy.json", [([f"elsewhere/{number}.jpg"], text) for number, (_, text) in enumerate(truth)]
    )
    wrong = [(images, "A vase.") for images, _ in truth[:9]] + [
        (truth[0][0], "Again."),
        (["unknown.jpg"], "Who?"),
        ([], "No images."),
        (truth[9][0], " "),
    ]
    caption_file(tmp_path / "models/b.json", wrong, "qwen-base")
    sentences = tiny_sentence_model(tmp_path / "bert")
    found, progress = run(
        tmp_path / "out", {"captions": tmp_path / "models", "reference": reference, "sentence_model": sentences}
    )
    assert set(found["models"]) == {"copy", "qwen-base"}
    copy, base = found["models"]["copy"]["captions"], found["models"]["qwen-base"]
    assert copy["bleu_4"]["value"] == pytest.approx(1)
    assert copy["semantic_similarity"]["value"] == pytest.approx(1)
    assert copy["recall_at_1"]["target"] == "reference caption (sentence model)"
    assert copy["frechet_distance"]["value"] == pytest.approx(0, abs=1e-6)
    assert copy["lexical_similarity"]["value"] == 1 > base["captions"]["lexical_similarity"]["value"]
    counts = {kind: len(items) for kind, items in base["problems"].items()}
    assert counts == {"doubled": 1, "unknown images": 1, "without images": 1, "without a caption": 1, "missing": 3}
    assert base["captions"]["bleu_1"]["samples"] == 9
    assert any("qwen-base: " in note for note in progress.notes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("{}", "is not a list"),
        ("[3]", "entry 1 is not an object"),
        ('[{"images": ["x.jpg"], "caption": "y"}]', "No caption by"),
    ],
)
def test_invalid_caption_files_are_refused(text: str, said: str, tmp_path: Path) -> None:
    reference = caption_file(tmp_path / "truth.json", [(["a.jpg"], "A vase.")])
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(DataError, match=said):
        run(tmp_path / "out", {"captions": tmp_path / "c.json", "reference": reference})
