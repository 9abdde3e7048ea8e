"""The metrics of VaseVQA-3D's own comparison. The tests recompute them in plain Python like the original code."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.evaluation.conftest import run
from tests.evaluation.test_evaluate import caption_file, tiny_sentence_model
from vasevqa.errors import DataError
from vasevqa.evaluation import original
from vasevqa.evaluation.encoders import Remembered, SentenceModel
from vasevqa.evaluation.original import Caption

WORDS = ("attic", "kylix", "krater", "satyr", "black", "red")


def counted(texts: Sequence[str]) -> np.ndarray:
    """A text encoder: the count of each word, and a constant."""
    rows = [[*(text.lower().count(word) for word in WORDS), 0.5] for text in texts]
    return np.asarray(rows, dtype=np.float32)


PAIRS = [
    ("An Attic kylix, black.", "An attic kylix with a satyr, black"),
    ("A krater.", "A red krater"),
    ("A satyr, a satyr", "An Attic krater, red"),
    ("", "A kylix"),
    ("Red red kylix", "Red red kylix"),
    ("Attic black krater", "Black kylix"),
]


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(a * a for a in one)) / math.sqrt(sum(b * b for b in other))


def test_each_metric_equals_a_plain_recomputation() -> None:
    said, true = counted([one for one, _ in PAIRS]).tolist(), counted([other for _, other in PAIRS]).tolist()
    found = original.figures(PAIRS, counted, counted)
    score = sum(cosine(one, other) for one, other in zip(said, true, strict=True)) / len(PAIRS)
    assert found["clip_score"]["value"] == pytest.approx(score, abs=1e-6)
    assert found["semantic_similarity"]["value"] == found["clip_score"]["value"]
    for k in (1, 5, 10):
        hits = 0
        for number, one in enumerate(said):
            near = sorted(range(len(true)), key=lambda other, one=one: -cosine(one, true[other]))  # type: ignore[misc]
            hits += number in near[:k]
        assert found[f"r_at_{k}"]["value"] == pytest.approx(hits / len(PAIRS))
    shared = [2 / 9, 1 / 4, 0, 0, 1, 1 / 4]  # words between spaces: `kylix,` and `black.` differ from `kylix`, `black`
    lexical = sum(shared) / 6
    assert found["lexical_similarity"]["value"] == pytest.approx(lexical)
    parts = {name: metric["value"] or 0.0 for name, metric in found.items()}
    weighted = 0.25 * parts["clip_score"] + 0.25 * parts["semantic_similarity"] + 0.2 * parts["r_at_10"]
    weighted += 0.15 * lexical + 0.1 * parts["r_at_5"] + 0.05 * parts["r_at_1"]
    assert found["overall_score"]["value"] == pytest.approx(weighted)


def test_the_distance_of_two_axis_aligned_gaussians_is_correct() -> None:
    ours = np.array([[0, 0], [2, 0], [0, 4], [2, 4]], dtype=np.float32)
    theirs = ours * np.float32(2) + np.float32(1)
    embeddings = {**{f"a{n}": row for n, row in enumerate(ours)}, **{f"b{n}": row for n, row in enumerate(theirs)}}
    paired = [(f"a{n}", f"b{n}") for n in range(4)]
    found = original.figures(paired, None, lambda texts: np.stack([embeddings[text] for text in texts]))
    variances = [(4 / 3, 16 / 3), (16 / 3, 64 / 3)]  # the divisor is n - 1
    apart = (3 - 1) ** 2 + (5 - 2) ** 2  # the means are (1, 2) and (3, 5)
    root = sum(math.sqrt((variances[0][axis] + 1e-6) * (variances[1][axis] + 1e-6)) for axis in (0, 1))
    expected = apart + sum(sum(pair) + 2e-6 for pair in variances) - 2 * root
    assert found["fid_score"]["value"] == pytest.approx(expected, abs=1e-6)
    assert found["clip_score"]["reason"] == "no CLIP model was given (--clip-model)"
    assert found["overall_score"]["value"] == 0  # the original code uses 0 for a missing metric


@pytest.mark.parametrize(
    ("picture", "name"),
    [
        ("0a1b_3_ac001_texture.jpg", "0a1b_3"),
        ("folder_x/0a1b_3_ac.png", "0a1b_3"),
        ("F_1.jpg", "F_1"),
        ("12.jpg", "12"),
        ("12.png", "12.png"),
    ],
)
def test_captions_are_paired_by_the_first_two_parts_of_a_name(picture: str, name: str) -> None:
    assert original.picture_id(picture) == name


def test_the_last_reference_of_a_name_is_used_and_captions_without_reference_are_left_out() -> None:
    references = [Caption("u_1_a.jpg", "first"), Caption("u_1_b.jpg", "last"), Caption("v_1_a.jpg", "other")]
    generated = [Caption("v_1_x.jpg", "b"), Caption("w_1_x.jpg", "c"), Caption("u_1_x.jpg", "a"), Caption("u_1_x", "d")]
    assert original.pairs(generated, references) == [("b", "other"), ("a", "last"), ("d", "last")]


def test_a_comparison_of_caption_files_has_both_tables(tmp_path: Path) -> None:
    truth = [([f"{n}_front_ac.jpg", f"{n}_back_ac.jpg"], f"An Attic kylix, number {n}.") for n in range(6)]
    said = [(images, text.replace("Attic", "attic")) for images, text in truth] + [(truth[0][0], "Again.")]
    found, _ = run(
        tmp_path / "out",
        {
            "captions": caption_file(tmp_path / "c/m.json", said),
            "reference": caption_file(tmp_path / "truth.json", truth),
            "sentence_model": tiny_sentence_model(tmp_path / "bert"),
        },
    )
    measured = found["models"]["m"]["original"]
    assert (measured["lexical_similarity"]["samples"], found["models"]["m"]["captions"]["bleu_1"]["samples"]) == (7, 6)
    assert measured["lexical_similarity"]["value"] == pytest.approx(6 / 7)
    assert measured["fid_score"]["value"] >= 0
    table = (tmp_path / "out/comparison.md").read_text()
    assert "| lexical_similarity | 0.857 | 7 |" in table
    assert "| clip_score | n/a | 7 |" in table
    assert "| semantic_similarity | CLIP again" in table


def module(folder: Path, kind: str, path: str = "", **config: Any) -> dict[str, Any]:
    if config:
        (folder / path).mkdir(exist_ok=True)
        (folder / path / "config.json").write_text(json.dumps(config))
    return {"path": path, "type": f"sentence_transformers.models.{kind}"}


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_a_sentence_model_is_used_with_the_settings_in_its_folder(pooling: str, tmp_path: Path) -> None:
    folder = tiny_sentence_model(tmp_path / "bert")
    plain = SentenceModel(folder, torch.device("cpu"))
    key = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}
    modules = [
        module(folder, "Transformer"),
        module(folder, "Pooling", "1_Pooling", **{name: name == key[pooling] for name in key.values()}),
        module(folder, "Normalize", "2_Normalize"),
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 4, "do_lower_case": false}')
    found = SentenceModel(folder, torch.device("cpu"))(["an attic kylix vase krater", "an"])
    assert np.linalg.norm(found, axis=1) == pytest.approx(1)
    same = SentenceModel(folder, torch.device("cpu"))(["an attic kylix vase"])[0]
    assert found[0] == pytest.approx(same, abs=1e-6)  # the text is cut after four tokens
    unit = plain(["an attic kylix vase", "an"])
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    assert np.allclose(found, unit, atol=1e-6) == (pooling == "mean")


@pytest.mark.parametrize(
    ("kind", "config", "says"),
    [
        ("Dense", {"in_features": 4}, "module 'Dense'"),
        ("Pooling", {"pooling_mode_lasttoken": True}, "sets the pooling pooling_mode_lasttoken"),
        ("Pooling", {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, "pools by mean, cls or max"),
    ],
)
def test_a_sentence_model_with_unsupported_settings_is_refused(
    kind: str, config: dict[str, Any], says: str, tmp_path: Path
) -> None:
    folder = tiny_sentence_model(tmp_path / "bert")
    modules = [module(folder, "Transformer"), module(folder, kind, "1_Other", **config)]
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(DataError, match=says):
        SentenceModel(folder, torch.device("cpu"))


def test_a_text_is_encoded_once() -> None:
    asked: list[str] = []

    def encode(texts: Sequence[str]) -> np.ndarray:
        asked.extend(texts)
        return counted(texts)

    remembered = Remembered(encode)
    assert np.array_equal(remembered(["a kylix", "red", "a kylix"]), counted(["a kylix", "red", "a kylix"]))
    remembered(["red", "black"])
    assert asked == ["a kylix", "red", "black"]
