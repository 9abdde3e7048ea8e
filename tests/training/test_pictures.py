"""Training, curation and evaluation get the same pixels, for all kinds of files."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.photographs import KINDS, Kind, halves
from vasevqa.curation.images import open_image
from vasevqa.errors import ConfigError, DataError
from vasevqa.evaluation.generation import Resizing, TransformersAnswers, VllmAnswers
from vasevqa.evaluation.params import EvaluateParams
from vasevqa.training.swift.pictures import use_our_decoder
from vasevqa.training.swift.worker import sentence_of

MAX_PIXELS = 5000  # fewer pixels than the pictures have, so that resizing is compared too


@pytest.fixture(scope="module")
def template(qwen: Path) -> Iterator[Any]:
    from swift.model import get_processor
    from swift.template import base, get_template, vision_utils

    kept = base.Template._load_image, base.Template._preprocess_inputs, vision_utils.load_image, base.load_image
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAX_PIXELS", str(MAX_PIXELS))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.delenv("IMAGE_MAX_TOKEN_NUM", raising=False)
        import qwen_vl_utils.vision_process as limits

        patch.setattr(limits, "IMAGE_MAX_TOKEN_NUM", MAX_PIXELS // 28**2)
        use_our_decoder()
        use_our_decoder()  # a second call changes nothing
        found = get_template(get_processor(str(qwen), model_type="qwen2_5_vl"), template_type="qwen2_5_vl")
        yield found
    base.Template._load_image = staticmethod(kept[0])
    base.Template._preprocess_inputs, vision_utils.load_image, base.load_image = kept[1:]


class Asked:
    """Records the pictures that evaluate passes to a processor or an engine."""

    def __init__(self, processor: Any) -> None:
        self.processor, self.batch = processor, None
        self.tokenizer, self.image_processor = processor.tokenizer, processor.image_processor
        self.apply_chat_template = processor.apply_chat_template

    def __call__(self, **given: Any) -> Any:
        self.batch = self.processor(**given)
        raise StopIteration  # the test doesn't use the answer

    def generate(self, asked: Any, *rest: Any, **how: Any) -> Any:
        self.batch = asked
        return []


def params() -> EvaluateParams:
    return EvaluateParams(max_pixels=MAX_PIXELS)


def row(image: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": "<image>What is it?"}, {"role": "assistant", "content": "A kylix."}]
    return {"messages": turns, "images": [image]}


def evaluated(processor: Any, root: Path, name: str) -> torch.Tensor:
    answers = TransformersAnswers.__new__(TransformersAnswers)
    answers._processor = asked = Asked(processor)
    answers._resizing, answers._root = Resizing.of(processor, MAX_PIXELS), root
    answers._device, answers._params = torch.device("cpu"), params()
    with pytest.raises(StopIteration):
        answers([row(name)])
    return asked.batch["pixel_values"]


def handed_to_vllm(processor: Any, root: Path, name: str) -> torch.Tensor:
    answers = VllmAnswers.__new__(VllmAnswers)
    answers._processor, answers._engine, answers._sampling, answers._samples = processor, Asked(processor), None, 0
    answers._resizing, answers._root = Resizing.of(processor, MAX_PIXELS), root
    answers([row(name)])
    [asked] = answers._engine.batch
    images = asked["multi_modal_data"]["image"]
    return processor.image_processor(images=images, return_tensors="pt", **asked["mm_processor_kwargs"])["pixel_values"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_all_readers_of_a_file_get_the_same_pixels(
    kind: Kind, template: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind.write(tmp_path / kind.name)
    monkeypatch.setenv("ROOT_IMAGE_DIR", str(tmp_path))
    seen = Resizing.of(template.processor, MAX_PIXELS)(open_image(tmp_path / kind.name))
    assert seen.width * seen.height <= MAX_PIXELS
    images = template.processor.image_processor
    wanted = images(images=[seen], return_tensors="pt", do_resize=False)["pixel_values"]
    template.set_mode("train")
    sft = template.encode(row(kind.name))["pixel_values"]
    template.set_mode("transformers")
    grpo = template.encode({"messages": row("")["messages"][:1], "images": [kind.name]})["pixel_values"]
    template.set_mode("vllm")
    [rollout] = template.encode({"messages": row("")["messages"][:1], "images": [kind.name]})["images"]
    assert torch.equal(sft, wanted)
    assert torch.equal(grpo, wanted)
    assert rollout.tobytes() == seen.tobytes()
    assert torch.equal(evaluated(template.processor, tmp_path, kind.name), wanted)
    assert torch.equal(handed_to_vllm(template.processor, tmp_path, kind.name), wanted)


def test_pictures_in_rows_are_decoded_in_the_same_way(template: Any, tmp_path: Path) -> None:
    kind = next(kind for kind in KINDS if kind.name == "portrait.jpg")
    kind.write(tmp_path / kind.name)
    content = (tmp_path / kind.name).read_bytes()
    packed = base64.b64encode(content).decode()
    template.set_mode("train")
    wanted = template.encode(row(str(tmp_path / kind.name)))["pixel_values"]
    given = {"bytes": content, "path": None}, {"bytes": None, "path": str(tmp_path / kind.name)}
    for image in (*given, f"data:image/jpeg;base64,{packed}", packed):
        assert torch.equal(template.encode(row(image))["pixel_values"], wanted)


def test_a_row_with_an_unreadable_picture_is_reported(
    template: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOT_IMAGE_DIR", str(tmp_path))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    template.set_mode("train")
    with pytest.raises(DataError, match=r"broken\.jpg can't be read .* asks '<image>What is it\?'"):
        template.encode(row("broken.jpg"))
    with pytest.raises(DataError, match=r"gone\.jpg can't be read \(the file vanished\)"):
        template.encode(row("gone.jpg"))
    with pytest.raises(DataError, match="has a web address"):
        template.encode(row("https://example.org/x.jpg"))


def test_an_ms_swift_that_loads_pictures_differently_is_refused(template: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from swift.template.base import Template

    monkeypatch.setattr(Template, "_load_image", staticmethod(lambda picture: picture))
    with pytest.raises(ConfigError, match="opens pictures in an unknown way"):
        use_our_decoder()


def test_a_picture_below_the_limit_keeps_its_size(template: Any) -> None:
    image = halves(size=(56, 84))
    assert Resizing.of(template.processor, MAX_PIXELS)(image).tobytes() == image.tobytes()


class Unreadable(torch.utils.data.Dataset[Any]):
    """A dataset of one row, whose picture can't be read."""

    def __init__(self, template: Any) -> None:
        self._template = template

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return self._template.encode(row("gone.jpg"))


def test_the_error_message_of_a_data_loading_process_is_kept(template: Any) -> None:
    template.set_mode("train")
    with pytest.raises(DataError) as raised:
        next(iter(torch.utils.data.DataLoader(Unreadable(template), num_workers=1)))
    sentence = sentence_of(raised.value)
    assert sentence.startswith("The picture ")
    assert sentence.endswith("correct the file, or build the dataset again.")
    assert "\n" not in sentence
    assert sentence_of(DataError("One sentence.")) == "One sentence."
