"""Compare the logits of a merged model with the logits of the unmerged base model and adapter.

The prompts and the image are fixed. Only one model is in memory at a time.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from vasevqa.curation.devices import DTYPES
from vasevqa.errors import DataError
from vasevqa.storage import refuse_failed
from vasevqa.text import first_line
from vasevqa.training.checkpoints import ADAPTER

PROMPTS = (
    "What is the shape of this vase?",
    "Which technique was used to decorate this vase, and when was it made?",
    "Describe the decoration of this vase in one sentence.",
)


def picture() -> Image.Image:
    """Return a fixed drawing of 224 x 224 pixels that resembles a red-figure pot."""
    image = Image.new("RGB", (224, 224), (214, 204, 188))
    draw = ImageDraw.Draw(image)
    draw.ellipse((62, 60, 162, 200), fill=(40, 26, 22))
    draw.rectangle((96, 24, 128, 80), fill=(48, 30, 24))
    draw.rectangle((70, 110, 154, 124), fill=(196, 104, 54))
    draw.polygon([(92, 176), (112, 130), (132, 176)], fill=(196, 104, 54))
    return image


def inputs(processor: Any) -> list[dict[str, Tensor]]:
    """Return the model's inputs for each prompt in PROMPTS, together with the picture."""
    rows = []
    for prompt in PROMPTS:
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        rows.append(dict(processor(text=[text], images=[picture()], return_tensors="pt")))
    return rows


@torch.inference_mode()
def logits(
    model_folder: Path, processor_folder: Path, adapter: Path | None, dtype: str, device: torch.device
) -> list[Tensor]:
    """Return one tensor of logits (tokens, vocabulary) for each prompt, in float32 on the CPU.

    Raise DataError if a folder can't be loaded.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(processor_folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForImageTextToText.from_pretrained(
            model_folder,
            dtype=DTYPES[dtype],
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="eager",
        )
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter)
            _check_loaded(model, adapter)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        refuse_failed(error, adapter or model_folder)
        first = first_line(error)
        raise DataError(
            f"{adapter or model_folder} can't be loaded ({type(error).__name__}: {first}); copy it or train again."
        ) from None
    model = model.to(device).eval()
    found = [
        model(**{name: value.to(device) for name, value in row.items()}).logits[0].float().cpu()
        for row in inputs(processor)
    ]
    del model
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return found


def _check_loaded(model: Any, adapter: Path) -> None:
    """Raise DataError if peft did not load every tensor of the adapter unchanged. peft itself only gives a warning."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    has = get_peft_model_state_dict(model, save_embedding_layers=False)
    with safe_open(adapter / ADAPTER, framework="pt") as tensors:
        for name in sorted(set(tensors.keys()) ^ set(has)):
            raise DataError(f"peft can't load {name} of the adapter {adapter}; copy or train the adapter again.")
        for name in tensors.keys():  # noqa: SIM118 - not a mapping
            if not torch.equal(tensors.get_tensor(name).to(has[name].dtype), has[name].cpu()):
                raise DataError(
                    f"peft loads {name} of the adapter {adapter} with changed values; train the adapter again."
                )


@dataclass(frozen=True)
class Parity:
    """The differences between the logits of two models, over all tokens of PROMPTS."""

    max_difference: float
    mean_difference: float
    agreement: float  # fraction of the tokens for which both models predict the same next token
    tokens: int
    prompts: int = len(PROMPTS)


def compare(before: list[Tensor], after: list[Tensor]) -> Parity:
    """Return the differences between two results of `logits` for the same prompts."""
    differences = [(one - other).abs() for one, other in zip(before, after, strict=True)]
    same = [(one.argmax(-1) == other.argmax(-1)) for one, other in zip(before, after, strict=True)]
    return Parity(
        max_difference=max(float(difference.max()) for difference in differences),
        mean_difference=float(torch.cat([difference.flatten() for difference in differences]).mean()),
        agreement=float(torch.cat(same).float().mean()),
        tokens=sum(len(one) for one in same),
    )
