"""`python -m scripts.check_model FOLDER`: check that a model gets the same tokens in training and in evaluation.

The script also checks that the folder is complete, and that the weights fit the configuration. It needs no GPU.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from vasevqa.errors import VaseError
from vasevqa.models import check_model, skeleton

QUESTION = "What is the shape of this vase?"
SIZES = ((112, 112), (640, 480), (300, 1500))
PIXELS = 1003520  # the default of sft, grpo and evaluate


def trained(folder: Path, picture: Path, pixels: int) -> list[int]:
    """Return the tokens that ms-swift gives to the model in training, for QUESTION about a picture."""
    from vasevqa.training.params import SftParams
    from vasevqa.training.swift import arguments
    from vasevqa.training.swift.lengths import template_of

    paths = arguments.TrainingPaths(folder, picture.parent, picture.parent)
    row = {"messages": [{"role": "user", "content": f"<image>{QUESTION}"}], "images": [str(picture)]}
    with limited_to(pixels):
        _, template = template_of(arguments.reading(SftParams(), paths))
        template.set_mode("transformers")
        return [int(token) for token in template.encode(row)["input_ids"]]


@contextmanager
def limited_to(pixels: int) -> Iterator[None]:
    """Inside a `with` block, make ms-swift scale down pictures that have more than `pixels` pixels.

    ms-swift reads this limit from the environment variable MAX_PIXELS.
    """
    before = os.environ.get("MAX_PIXELS")
    os.environ["MAX_PIXELS"] = str(pixels)
    try:
        yield
    finally:
        del os.environ["MAX_PIXELS"]
        if before is not None:
            os.environ["MAX_PIXELS"] = before


def evaluated(folder: Path, picture: Path, pixels: int) -> list[int]:
    """Return the tokens that the stage evaluate gives to the model, for QUESTION about a picture."""
    from transformers import AutoProcessor

    from vasevqa.dataset.rows import Message, Row
    from vasevqa.evaluation import generation

    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    row = Row(messages=[Message(role="user", content=f"<image>{QUESTION}")], images=[str(picture)])
    text = processor.apply_chat_template(generation.prompt_of(row), tokenize=False, add_generation_prompt=True)
    resizing = generation.Resizing.of(processor, pixels)
    seen = generation.picture(picture, resizing)
    batch = processor(text=[text], images=[[seen]], return_tensors="pt", **resizing.processor_arguments)
    return [int(token) for token in batch["input_ids"][0]]


def difference(folder: Path, pixels: int = PIXELS) -> str:
    """Return a sentence about the first token that differs between training and evaluation, or '' if none differs."""
    with tempfile.TemporaryDirectory() as scratch:
        for size in SIZES:
            picture = Path(scratch) / f"{size[0]}x{size[1]}.jpg"
            Image.effect_noise(size, 60).convert("RGB").save(picture)
            one, other = trained(folder, picture, pixels), evaluated(folder, picture, pixels)
            if one != other:
                place = next((i for i, pair in enumerate(zip(one, other, strict=False)) if len(set(pair)) > 1), None)
                where = f"token {place}" if place is not None else "the end"
                return (
                    f"A question about a picture of {size[0]} x {size[1]} pixels has {len(one)} tokens in training and"
                    f" {len(other)} in evaluation, and the tokens differ from {where} on; compare the chat template of"
                    f" {folder} with that of the model's publisher."
                )
    return ""


def main(folder: Path) -> int:
    """Check the model in `folder` and print the result. Return 0 if it can be used, otherwise the error's exit code."""
    try:
        model = check_model(folder)
        skeleton(folder)
    except VaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    said = difference(folder.absolute())
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    fine = (
        f"{folder} ({kind}): training and evaluation read a question alike;"
        f" {model.parameters / 1e9:.3g} billion parameters, {model.layers} layers"
    )
    print(f"error: {said}" if said else fine)
    return 3 if said else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
