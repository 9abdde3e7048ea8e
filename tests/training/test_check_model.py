"""Training and evaluation give a model the same tokens, also for architectures that don't fit on this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from scripts import check_model

TEXT = {  # the values in the publisher's config.json
    "3B": {"hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2},
    "7B": {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4},
}


def with_config(qwen: Path, folder: Path, **text: Any) -> Path:
    """Write the tiny model's tokenizer and processor, and the configuration of a large model."""
    from transformers import Qwen2_5_VLConfig

    shutil.copytree(qwen, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    small = json.loads((qwen / "config.json").read_text())
    ids = {name: value for name, value in small.items() if name.endswith("_token_id")}
    vision = {"depth": 32, "hidden_size": 1280, "out_hidden_size": text["hidden_size"]}
    Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("size", TEXT)
def test_the_real_architectures_get_equal_tokens(size: str, qwen: Path, tmp_path: Path) -> None:
    assert check_model.difference(with_config(qwen, tmp_path / size, **TEXT[size])) == ""


def test_qwen3_vl_gets_equal_tokens(qwen: Path, tmp_path: Path) -> None:
    """Its patches have 16 pixels, and its template adds no system turn."""
    from transformers import (
        AutoTokenizer,
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    template = (qwen / "chat_template.jinja").read_text()
    system = template[template.index("{% if loop.first") : template.index("<|im_start|>{{ message")]
    size: dict[str, Any] = {"patch_size": 16, "size": {"shortest_edge": 65536, "longest_edge": 16777216}}
    images, videos = Qwen2VLImageProcessor(**size), Qwen3VLVideoProcessor(**size)
    tokenizer = AutoTokenizer.from_pretrained(qwen)
    Qwen3VLProcessor(images, tokenizer, videos, chat_template=template.replace(system, "")).save_pretrained(tmp_path)
    small = json.loads((qwen / "config.json").read_text())
    ids = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    Qwen3VLConfig(**{name: small[name] for name in ids if name in small}).save_pretrained(tmp_path)
    assert check_model.difference(tmp_path) == ""


def test_a_matching_model_passes_and_a_wrong_template_is_reported(
    qwen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_model.main(qwen) == 0
    assert "(qwen2_5_vl): training and evaluation read a question alike;" in capsys.readouterr().out
    other = Path(shutil.copytree(qwen, tmp_path / "other"))
    template = other / "chat_template.jinja"
    template.write_text(template.read_text().replace("You are a helpful assistant.", "You are a museum guide."))
    assert check_model.main(other) == 3
    assert "the tokens differ from token" in capsys.readouterr().out


def test_a_folder_without_weights_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_model.main(tmp_path) == 2
    assert str(tmp_path) in capsys.readouterr().err
