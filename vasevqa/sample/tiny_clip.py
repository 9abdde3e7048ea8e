"""Train a tiny CLIP model on drawn vases.

The model consists of a small ResNet and a small text tower in open_clip's format. Training takes about two minutes. The
loss is CLIP's loss (Radford et al., 2021) with soft targets. If several captions fit one picture equally well, the
target probability is divided among these captions.
"""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vasevqa import files
from vasevqa.curation.clip import OPENAI_MEAN, OPENAI_STD
from vasevqa.curation.devices import fast_bf16
from vasevqa.sample.captions import caption
from vasevqa.sample.catalogue import Vase, invent
from vasevqa.sample.dataset import OnProgress, damage
from vasevqa.sample.making import augmented, draw_pictures, make_once, reproducible
from vasevqa.sample.photographing import Shot

VERSION = 2  # increased when the code makes a different model from the same seed
SIZE, DRAWN, MARGIN = 96, 144, 8  # in pixels: sides of the model's input and of the drawn picture, margin for crops
SHOTS = 3  # pictures of each vase: the first is intact, the second is damaged, the third is either
BATCH = 48
MODEL: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"layers": [1, 2, 2, 1], "width": 16, "image_size": SIZE},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
Known = tuple[Vase, str | None]  # content of a picture: a vase, and its damage if any


def train_tiny_clip(
    folder: Path, seed: int = 0, images: int = 1800, steps: int = 350, on_progress: OnProgress | None = None
) -> bool:
    """Train a tiny CLIP on `images` pictures of drawn vases. Return False if the folder already holds this model.

    Write open_clip_config.json and open_clip_model.safetensors. On the same kind of CPU, the same seed gives the same
    model. After an interruption, the training starts again from the beginning. A tiny CLIP with different settings in
    the folder is replaced.

    Raise ConfigError if the folder holds files that are not a tiny CLIP.
    """
    wanted = {"version": VERSION, "seed": seed, "images": images, "steps": steps}

    def write(partial: Path) -> None:
        _save(partial, *_train(seed, images, steps, on_progress or (lambda what, done, total: None)))

    return make_once(folder, "tiny_clip.json", wanted, write)


def _save(folder: Path, model: nn.Module, losses: list[float]) -> None:
    from safetensors.torch import save_file

    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    preprocess = {
        "mean": list(OPENAI_MEAN),
        "std": list(OPENAI_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    files.write_json(folder / "open_clip_config.json", {"model_cfg": MODEL, "preprocess_cfg": preprocess})
    files.write_json(folder / "training_log.json", {"loss": [round(loss, 4) for loss in losses]}, indent=None)


def _train(seed: int, count: int, steps: int, report: OnProgress) -> tuple[nn.Module, list[float]]:
    import open_clip
    from open_clip.model import CLIP

    pixels, known = _pictures(seed, count, report)
    likeness = _likeness(known)
    tokenizer = open_clip.SimpleTokenizer(context_length=MODEL["text_cfg"]["context_length"])
    rng = random.Random(f"captions-{seed}")
    autocast = fast_bf16(torch.device("cpu"))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (OPENAI_MEAN, OPENAI_STD))
    losses: list[float] = []
    with reproducible(seed):
        model = CLIP(**copy.deepcopy(MODEL)).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
        order: list[int] = []
        for step in range(steps):
            if len(order) < BATCH:
                order += torch.randperm(count).tolist()
            rows, order = order[:BATCH], order[BATCH:]
            tokens = tokenizer([caption(*known[row], rng) for row in rows])
            batch = ((augmented(pixels[rows], SIZE).float() / 255 - mean) / std).contiguous(
                memory_format=torch.channels_last
            )
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                images, texts = model.encode_image(batch, normalize=True), model.encode_text(tokens, normalize=True)
            logits = images.float() @ texts.float().T * model.logit_scale.exp().clamp(max=50)
            target = likeness[rows][:, rows].softmax(-1)
            loss = (
                nn.functional.cross_entropy(logits, target)
                + nn.functional.cross_entropy(logits.T, target.T / target.T.sum(-1, keepdim=True))
            ) / 2
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            report("training", step + 1, steps)
    return model.eval(), losses


def _pictures(seed: int, count: int, report: OnProgress) -> tuple[Tensor, list[Known]]:
    """Draw pictures. Return the pictures, and the vase and the damage in each picture.

    The pictures are (count, 3, SIZE + MARGIN, SIZE + MARGIN) uint8.
    """
    rng = random.Random(f"tiny-clip-{seed}")
    known: list[Known] = []
    shots = []
    vase = invent(rng)
    for number in range(count):
        turn = number % SHOTS
        if turn == 0:
            vase = invent(rng)
        kind = None if turn == 0 or (turn == 2 and rng.random() < 0.5) else damage(rng)
        known.append((vase, kind))
        shots.append(Shot(rng.uniform(0, 360), kind, rng.getrandbits(32), DRAWN))
    pairs = [(vase, shot) for (vase, _), shot in zip(known, shots, strict=True)]
    return draw_pictures(pairs, SIZE + MARGIN, report), known


def _likeness(known: list[Known]) -> Tensor:
    """Return a matrix (N, N). The element i, j says how well the caption of picture j fits picture i.

    The element is greater if the two pictures have more in common. The same kind of damage counts most. The same shape
    and the same technique count less.
    """

    def same(values: list[str | None]) -> Tensor:
        number = {value: index for index, value in enumerate(dict.fromkeys(values))}
        column = torch.tensor([number[value] for value in values])
        return (column[:, None] == column[None]).float()

    return (
        5 * same([kind for _, kind in known])
        + 1.2 * same([vase.shape for vase, _ in known])
        + 1.2 * same([vase.technique for vase, _ in known])
    )
