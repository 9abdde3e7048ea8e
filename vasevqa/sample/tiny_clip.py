"""A tiny CLIP that knows drawn vases.

It consists of a small ResNet and a small text tower in open_clip's format. It is trained in about two minutes. The loss
is CLIP's (Radford et al., 2021) with soft targets: captions that say the same about a picture share the credit.
"""

from __future__ import annotations

import copy
import io
import json
import random
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from vasevqa import files
from vasevqa.curation.clip import OPENAI_MEAN, OPENAI_STD
from vasevqa.curation.devices import fast_bf16
from vasevqa.errors import ConfigError
from vasevqa.sample.captions import caption
from vasevqa.sample.catalogue import Vase, invent
from vasevqa.sample.dataset import OnProgress, damage
from vasevqa.sample.photographing import Shot, photograph

VERSION = 2  # raised when the same seed trains something else
SIZE, DRAWN, MARGIN = 96, 144, 8  # pixels: what the model sees, what is drawn, what random crops leave out
SHOTS = 3  # of each vase: one intact, one damaged, one of either kind; so the damage is what differs
BATCH = 48
THREADS = 2
MODEL: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"layers": [1, 2, 2, 1], "width": 16, "image_size": SIZE},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
Known = tuple[Vase, str | None]  # what a picture shows: a vase, and its damage if any


def train_tiny_clip(
    folder: Path, seed: int = 0, images: int = 2400, steps: int = 500, on_progress: OnProgress | None = None
) -> bool:
    """Train a tiny CLIP on `images` drawn vases, and return False if that was done before.

    Write open_clip_config.json and open_clip_model.safetensors. The same seed gives the same model on one kind of CPU.
    The folder appears only when it is complete, so an interrupted training begins anew. A model with other settings in
    the folder is replaced.

    Raise ConfigError if the folder holds anything else.
    """
    wanted = {"version": VERSION, "seed": seed, "images": images, "steps": steps}
    marker = folder / "tiny_clip.json"
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == wanted:
        return False
    if folder.exists() and not marker.is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} holds something else than a model trained here; choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if (
            marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == wanted
        ):  # somebody else trained it meanwhile
            return False
        model, losses = _train(seed, images, steps, on_progress or (lambda what, done, total: None))
        _save(folder, model, wanted, losses)
    return True


def _save(folder: Path, model: nn.Module, wanted: Mapping[str, object], losses: list[float]) -> None:
    from safetensors.torch import save_file

    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        partial / "open_clip_model.safetensors",
    )
    preprocess = {
        "mean": list(OPENAI_MEAN),
        "std": list(OPENAI_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    files.write_json(partial / "open_clip_config.json", {"model_cfg": MODEL, "preprocess_cfg": preprocess})
    files.write_json(partial / "training_log.json", {"loss": [round(loss, 4) for loss in losses]}, indent=None)
    files.write_json(partial / "tiny_clip.json", wanted)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


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
    with _reproducible(seed):
        model = CLIP(**copy.deepcopy(MODEL)).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
        order: list[int] = []
        for step in range(steps):
            if len(order) < BATCH:
                order += torch.randperm(count).tolist()
            rows, order = order[:BATCH], order[BATCH:]
            tokens = tokenizer([caption(*known[row], rng) for row in rows])
            batch = ((_augmented(pixels[rows]).float() / 255 - mean) / std).contiguous(
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


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Use the same random numbers and the same number of threads each time.

    The caller's random state and number of threads are restored at the end.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(THREADS)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _pictures(seed: int, count: int, report: OnProgress) -> tuple[Tensor, list[Known]]:
    """Return newly drawn pictures and what they show.

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
    pictures = []
    pool = ThreadPoolExecutor(THREADS)
    try:
        for picture in pool.map(lambda pair: _picture(pair[0][0], pair[1]), zip(known, shots, strict=True)):
            pictures.append(picture)
            report("drawing", len(pictures), count)
    finally:
        pool.shutdown(cancel_futures=True)
    return torch.stack(pictures), known


def _picture(vase: Vase, shot: Shot) -> Tensor:
    with Image.open(io.BytesIO(photograph(vase, shot))) as image:
        small = image.convert("RGB").resize((SIZE + MARGIN, SIZE + MARGIN), Image.Resampling.BICUBIC)
    return functional.pil_to_tensor(small)


def _likeness(known: list[Known]) -> Tensor:
    """Return how well the caption of each picture fits each other picture, as (N, N).

    The kind of damage counts most, then shape and technique.
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


def _augmented(pixels: Tensor) -> Tensor:
    """Return each picture cropped at random, and flipped with probability one half."""
    corners = torch.randint(0, MARGIN + 1, (len(pixels), 2)).tolist()
    flips = (torch.rand(len(pixels)) < 0.5).tolist()
    crops = [
        picture[:, top : top + SIZE, left : left + SIZE] for picture, (top, left) in zip(pixels, corners, strict=True)
    ]
    return torch.stack([crop.flip(-1) if flip else crop for crop, flip in zip(crops, flips, strict=True)])
