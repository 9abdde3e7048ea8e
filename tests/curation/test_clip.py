"""Scores: the same as a plain per-image implementation's, from either format, and no model but the one asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests import clips, pictures
from vasevqa.curation import scoring
from vasevqa.curation.clip import load_clip, model_digest
from vasevqa.curation.images import find_images
from vasevqa.curation.loader import Loader
from vasevqa.errors import ConfigError, DataError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(11):
        pictures.save(folder / f"{number:02}.jpg", number, (90 + 7 * number, 130 - 5 * number))
    return folder


def our_scores(folder: Path, model_folder: Path, batch_size: int = 4, precision: str = "fp32") -> np.ndarray:
    model = load_clip(model_folder, CPU, precision)
    prompts = scoring.Prompts()
    features = torch.cat(
        [model.encode_images(batch.pixels) for batch in Loader(find_images(folder), model.preprocess, batch_size)]
    )
    return scoring.score(features, model.encode_texts(list(prompts.high)), model.encode_texts(list(prompts.low))).score


def plain_scores(folder: Path, model_folder: Path) -> np.ndarray:
    """One image at a time with transformers' own processor, as anybody would write it."""
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(model_folder).eval()
    processor = CLIPImageProcessorPil.from_pretrained(model_folder)
    tokenizer = CLIPTokenizer.from_pretrained(model_folder)

    @torch.no_grad()
    def side(prompts: tuple[str, ...]) -> torch.Tensor:
        rows = [
            model.get_text_features(
                **tokenizer([prompt], padding="max_length", max_length=77, return_tensors="pt")
            ).pooler_output[0]
            for prompt in prompts
        ]
        mean = torch.stack(rows).mean(0)
        return mean / mean.norm()

    high, low = side(scoring.HIGH_PROMPTS), side(scoring.LOW_PROMPTS)
    scores = []
    for path in sorted(folder.iterdir()):
        with torch.no_grad():
            feature = model.get_image_features(
                **processor(Image.open(path).convert("RGB"), return_tensors="pt")
            ).pooler_output[0]
        feature = feature / feature.norm()
        scores.append(float(feature @ high - feature @ low))
    return np.array(scores)


def test_batched_scores_equal_a_plain_implementation(photos: Path, hf_clip: Path) -> None:
    ours, plain = our_scores(photos, hf_clip), plain_scores(photos, hf_clip)
    assert np.ptp(plain) > 0.01, "the images must differ for the comparison to mean anything"
    np.testing.assert_allclose(ours, plain, atol=1e-4)


def test_both_formats_give_the_same_scores(photos: Path, hf_clip: Path, tiny_clip: Path) -> None:
    np.testing.assert_allclose(our_scores(photos, tiny_clip), our_scores(photos, hf_clip), atol=1e-5)


def test_quickgelu_matters_and_is_respected(photos: Path, tmp_path: Path, hf_clip: Path) -> None:
    plain_gelu = tmp_path / "gelu"
    shutil.copytree(hf_clip, plain_gelu)
    config = json.loads((plain_gelu / "config.json").read_text())
    config["vision_config"]["hidden_act"] = config["text_config"]["hidden_act"] = "gelu"
    (plain_gelu / "config.json").write_text(json.dumps(config))
    assert np.abs(our_scores(photos, plain_gelu) - our_scores(photos, hf_clip)).max() > 1e-4
    np.testing.assert_allclose(
        our_scores(photos, clips.open_clip(tmp_path / "oc", plain_gelu)), our_scores(photos, plain_gelu), atol=1e-5
    )


def test_the_batch_size_changes_nothing(photos: Path, tiny_clip: Path) -> None:
    np.testing.assert_allclose(our_scores(photos, tiny_clip, 1), our_scores(photos, tiny_clip, 11), atol=1e-5)


def test_bf16_stays_near(photos: Path, tiny_clip: Path) -> None:
    assert np.abs(our_scores(photos, tiny_clip, precision="bf16") - our_scores(photos, tiny_clip)).max() < 0.02


@pytest.mark.parametrize("missing", ["model.safetensors", "open_clip_model.safetensors"])
def test_missing_weights_are_named(tmp_path: Path, hf_clip: Path, tiny_clip: Path, missing: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(hf_clip if missing == "model.safetensors" else tiny_clip, folder)
    (folder / missing).unlink()
    with pytest.raises(DataError, match=missing):
        load_clip(folder, CPU)


@pytest.mark.parametrize("damage", ["truncated", "of another shape", "broken config", "a pickle"])
def test_damaged_models_are_refused(tmp_path: Path, tiny_clip: Path, damage: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_clip, folder)
    weights = folder / "open_clip_model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "of another shape":
        config = json.loads((folder / "open_clip_config.json").read_text())
        config["model_cfg"]["embed_dim"] = 24
        (folder / "open_clip_config.json").write_text(json.dumps(config))
    elif damage == "a pickle":
        import os
        import pickle

        class Evil:
            def __reduce__(self) -> tuple[object, ...]:
                return os.mkdir, (str(tmp_path / "executed"),)

        weights.unlink()
        (folder / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    else:
        (folder / "open_clip_config.json").write_text("{")
    with pytest.raises(DataError):
        load_clip(folder, CPU)
    assert not (tmp_path / "executed").exists()


def test_what_is_no_clip_model_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"neither config.json"):
        load_clip(tmp_path, CPU)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match="bert"):
        load_clip(tmp_path, CPU)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE"):
        load_clip(Path("openai/clip-vit-base-patch32"), CPU)


def test_the_digest_follows_the_content(tmp_path: Path, tiny_clip: Path) -> None:
    shutil.copytree(tiny_clip, tmp_path / "a")
    assert model_digest(tmp_path / "a") == model_digest(tiny_clip)
    (tmp_path / "a/open_clip_config.json").write_text("{}")
    assert model_digest(tmp_path / "a") != model_digest(tiny_clip)
