"""The models that fit the pipeline, and the commands that download them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

FILE = Path(__file__).with_name("models.yaml")
CUDA_GIB = 1.5  # memory that CUDA itself needs
TRAINING_GIB = 8  # activations and the adapter's optimizer, with the recipes' defaults


class Choice(BaseModel):
    """A model that fits the recipe input `input`. `millions` is the number of its parameters in millions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    input: str
    about: str
    millions: int
    gigabytes: float
    licence: str
    as_of: str
    source: str | None = None
    modelscope: str | None = None
    run_here: bool

    @property
    def card(self) -> str:
        """The address of the model card, which states the valid licence."""
        return f"https://huggingface.co/{self.id}"

    @property
    def folder(self) -> str:
        """The folder to which the commands download the model."""
        return f"models/{self.id.rpartition('/')[2]}"

    def fetch(self) -> list[tuple[str, str]]:
        """Return the ways to download the model, each with its command."""
        plain = '--exclude "*.bin" "*.pt" "*.h5" "*.onnx" "*.msgpack"'
        ways = [("Hugging Face", f"hf download {self.id} {plain} --local-dir {self.folder}")]
        if self.modelscope:
            ways.append(("ModelScope", f"modelscope download --model {self.modelscope} --local_dir {self.folder}"))
        return [*ways, ("without a hub", f"rsync -a ANOTHER-MACHINE:{self.folder} models/")]

    def memory(self) -> str:
        """Return a text that estimates how much GPU memory a step needs for the model, with weights in bfloat16."""
        weights = self.millions * 2e6 / 2**30
        if self.input != "model":
            return f"about {weights + CUDA_GIB:.0f} GiB, or none on a CPU"
        return f"about {weights + CUDA_GIB + 1:.0f} GiB to answer, {weights + CUDA_GIB + TRAINING_GIB:.0f} GiB for LoRA"


@lru_cache
def choices() -> tuple[Choice, ...]:
    """Return all choices; for each input, the smallest model comes first."""
    return tuple(Choice.model_validate(one) for one in yaml.safe_load(FILE.read_text(encoding="utf-8")))


def first_choice(name: str) -> Choice:
    """Return the smallest model for the recipe input `name`. Raise KeyError if there is none."""
    for choice in choices():
        if choice.input == name:
            return choice
    raise KeyError(name)


def described(choice: Choice) -> list[str]:
    """Return the lines that `vasevqa models` prints about one model."""
    return [
        f"{choice.id}  ({choice.input}: {choice.about})",
        f"  size        {choice.gigabytes:g} GB to download, {choice.millions:,} million parameters",
        f"  licence     {choice.licence} (as of {choice.as_of}, {choice.source or 'not checked'}); before you use the"
        f" model, read {choice.card}",
        f"  GPU memory  {choice.memory()} (an estimate)",
        f"  run here    {'yes' if choice.run_here else 'no: nobody has run the pipeline with this model yet'}",
        *(f"  {way:<13} {command}" for way, command in choice.fetch()),
    ]
