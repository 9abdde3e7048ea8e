"""CLIP scores: equal to a plain implementation, in both formats, and only from the requested model."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests import clips, pictures
from vasevqa.curation import scoring
from vasevqa.curation.clip import load_clip
from vasevqa.curation.images import find_images
from vasevqa.curation.loader import Loader
from vasevqa.errors import ConfigError, DataError, GpuMemoryError, HostMemoryError, VaseError
from vasevqa.model_formats import folder_digest

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
    """Score one image at a time with transformers' own processor."""
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
    assert np.ptp(plain) > 0.01, "the images are too similar for a comparison"
    np.testing.assert_allclose(ours, plain, atol=1e-4)


def test_both_formats_give_the_same_scores(photos: Path, hf_clip: Path, tiny_clip: Path) -> None:
    np.testing.assert_allclose(our_scores(photos, tiny_clip), our_scores(photos, hf_clip), atol=1e-5)


def test_quickgelu_changes_the_scores_and_is_used_if_the_model_needs_it(
    photos: Path, tmp_path: Path, hf_clip: Path
) -> None:
    plain_gelu = tmp_path / "gelu"
    shutil.copytree(hf_clip, plain_gelu)
    config = json.loads((plain_gelu / "config.json").read_text())
    config["vision_config"]["hidden_act"] = config["text_config"]["hidden_act"] = "gelu"
    (plain_gelu / "config.json").write_text(json.dumps(config))
    assert np.abs(our_scores(photos, plain_gelu) - our_scores(photos, hf_clip)).max() > 1e-4
    np.testing.assert_allclose(
        our_scores(photos, clips.open_clip(tmp_path / "oc", plain_gelu)), our_scores(photos, plain_gelu), atol=1e-5
    )


def test_the_batch_size_does_not_change_the_scores(photos: Path, tiny_clip: Path) -> None:
    np.testing.assert_allclose(our_scores(photos, tiny_clip, 1), our_scores(photos, tiny_clip, 11), atol=1e-5)


def test_scores_in_bf16_are_close_to_scores_in_fp32(photos: Path, tiny_clip: Path) -> None:
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


def convert(said: str) -> None:
    """Run the command at the end of a message."""
    words = shlex.split(said[said.index("python -c") :])
    subprocess.run([sys.executable, *words[1:]], check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})


def test_pickled_weights_are_refused_with_a_command_that_converts_them(tmp_path: Path, hf_clip: Path) -> None:
    folder = tmp_path / "clip, from 'an older hub'"
    shutil.copytree(hf_clip, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"pickled weights only .pytorch_model.bin.*convert the weights once") as caught:
        load_clip(folder, CPU)
    convert(str(caught.value))
    prompts = ["a vase", "a sherd"]
    assert torch.equal(load_clip(folder, CPU).encode_texts(prompts), load_clip(hf_clip, CPU).encode_texts(prompts))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantized by bitsandbytes"),
        ({"model_type": "qwen2_5_vl"}, "of type 'qwen2_5_vl', not clip; give a CLIP model"),
        ({"model_type": "siglip"}, "of type 'siglip', not clip"),
    ],
)
def test_a_model_that_is_not_clip_is_refused_with_its_type(
    change: dict[str, object], said: str, tmp_path: Path, hf_clip: Path
) -> None:
    shutil.copytree(hf_clip, tmp_path / "clip")
    config = json.loads((hf_clip / "config.json").read_text())
    (tmp_path / "clip/config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ConfigError, match=said):
        load_clip(tmp_path / "clip", CPU)


@pytest.mark.parametrize("kind", ["hf", "open_clip"])
def test_a_pointer_of_git_lfs_is_reported(kind: str, tmp_path: Path, hf_clip: Path, tiny_clip: Path) -> None:
    folder = shutil.copytree(hf_clip if kind == "hf" else tiny_clip, tmp_path / "clip")
    next(folder.glob("*.safetensors")).write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n")
    with pytest.raises(DataError, match="run `git lfs pull`"):
        load_clip(folder, CPU)


def test_a_folder_without_a_clip_model_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"neither config.json"):
        load_clip(tmp_path, CPU)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match="bert"):
        load_clip(tmp_path, CPU)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE"):
        load_clip(Path("openai/clip-vit-base-patch32"), CPU)


def test_the_digest_depends_on_the_content(tmp_path: Path, tiny_clip: Path) -> None:
    shutil.copytree(tiny_clip, tmp_path / "a")
    assert folder_digest(tmp_path / "a") == folder_digest(tiny_clip)
    (tmp_path / "a/open_clip_config.json").write_text("{}")
    assert folder_digest(tmp_path / "a") != folder_digest(tiny_clip)


@pytest.mark.parametrize("name", ["ViT-B-32/laion2b_s34b_b79k", "org/model"])
def test_an_unreachable_hub_is_reported_in_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    for variable in ("https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=f"The hub did not answer for {name} .*give the path of a model folder"):
        load_clip(Path(name), CPU, "fp32", str(tmp_path))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), HostMemoryError),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: error code 12"), HostMemoryError),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), HostMemoryError),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), GpuMemoryError),
    ],
)
@pytest.mark.parametrize("name", ["hf_clip", "tiny_clip"])
def test_a_model_for_which_the_memory_does_not_suffice_is_not_called_damaged(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, name: str, error: Exception, kind: type[VaseError]
) -> None:
    def fail(*given: object, **how: object) -> None:
        raise error

    monkeypatch.setattr("transformers.CLIPModel.from_pretrained", fail)
    monkeypatch.setattr("open_clip.load_checkpoint", fail)
    with pytest.raises(kind, match="lower the batch size"):
        load_clip(request.getfixturevalue(name), CPU)
