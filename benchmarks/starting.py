"""Train the weights that benchmarks/labels.py uses in place of ImageNet's weights.

A ResNet18 learns five attributes of drawn vases: shape, technique, fabric, subject and border. These vases are neither
in the review nor in the test of benchmarks/labels.py. Some pictures show damage, as in every collection, but nothing
tells the network which pictures are good.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor, nn

from vasevqa.curation import classifier
from vasevqa.curation.augmentation import augmented
from vasevqa.sample.catalogue import Vase, invent
from vasevqa.sample.dataset import damage
from vasevqa.sample.making import draw_pictures
from vasevqa.sample.photographing import Shot

VASES, VIEWS, DAMAGED = 400, 4, 0.3  # DAMAGED is the share of pictures with damage, as in `vasevqa sample`
DRAWN, KEPT, SIDE = 192, 110, 64  # sides in pixels: of the drawn picture, of the stored one, and of the model's input
EPOCHS, BATCH, RATE, DECAY = 6, 16, 1e-3, 0.02


def starting_weights(path: Path) -> None:
    """Train the weights and write them to `path` as a state_dict without a head. This takes about six minutes."""
    shots = _shots()
    pixels = draw_pictures(shots, KEPT, lambda what, done, total: None)
    model = _taught(pixels, _told([vase for vase, _ in shots]))
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("fc.")}
    torch.save(state, path)


def _shots() -> list[tuple[Vase, Shot]]:
    rng, shots = random.Random("starting-999"), []
    for _ in range(VASES):
        vase = invent(rng)
        for _ in range(VIEWS):
            azimuth = rng.uniform(0, 360)
            kind = damage(rng) if rng.random() < DAMAGED else None
            shots.append((vase, Shot(azimuth, kind, rng.getrandbits(32), DRAWN)))
    return shots


def _told(vases: list[Vase]) -> Tensor:
    """Return the five attributes of each vase as class numbers (N, 5)."""
    rows = [(vase.shape, vase.technique, vase.ware.fabric, vase.subject, vase.border) for vase in vases]
    words = [sorted(set(column)) for column in zip(*rows, strict=True)]
    return torch.tensor([[words[at].index(value) for at, value in enumerate(row)] for row in rows])


def _taught(pixels: Tensor, told: Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = classifier.build("resnet18")
    sizes = (told.max(0).values + 1).tolist()
    model.fc = nn.Linear(512, sum(sizes))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = len(pixels) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * steps, pct_start=0.15)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (classifier.MEAN, classifier.STD))
    for _ in range(EPOCHS):
        order = torch.randperm(len(pixels))
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            given = ((augmented(pixels[rows], SIDE) - mean) / std).contiguous(memory_format=torch.channels_last)
            answers = model(given).split(sizes, dim=1)
            losses = [nn.functional.cross_entropy(one, told[rows, at]) for at, one in enumerate(answers)]
            optimizer.zero_grad(set_to_none=True)
            torch.stack(losses).sum().backward()
            optimizer.step()
            schedule.step()
    return model
