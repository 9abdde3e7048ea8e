"""Augment batches of training photographs on the model's device.

A transform of torchvision changes all images of a batch in the same way. Calling it for one image after another is
slow on a GPU. This module changes each image in its own way, but processes the whole batch at once. It combines all
geometric changes in one resampling (Jaderberg et al., "Spatial Transformer Networks", 2015).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

DEGREES = 10.0
AREA = (0.7, 1.0)  # area of the crop divided by the area of the image
RATIO = (0.9, 1.1)  # width of the crop divided by its height
BRIGHTNESS = CONTRAST = SATURATION = 0.2
HUE = 0.02  # greatest rotation of the hue, in turns
FILL = 127 / 255  # value of the pixels outside the image
LUMA = (0.2989, 0.587, 0.114)  # weights of R, G and B in ITU-R BT.601


def augmented(pixels: Tensor, size: int) -> Tensor:
    """Crop, rotate, flip and colour each image of a batch at random.

    `pixels` is (B, 3, S, S) uint8. The result is (B, 3, size, size) float32 in 0 to 1, on the same device. Each image
    gets its own random numbers. The random numbers come from the CPU's generator, so a seed gives the same augmentation
    on every device.
    """
    varied = _moved(pixels.float() / 255, size)
    return _coloured(varied)


def _draw(count: int, low: float, high: float) -> Tensor:
    return torch.empty(count).uniform_(low, high)


def _moved(images: Tensor, size: int) -> Tensor:
    """Return a random crop of each image, rotated at random, and mirrored with a probability of 0.5."""
    count = len(images)
    angle = _draw(count, -math.radians(DEGREES), math.radians(DEGREES))
    area, ratio = _draw(count, *AREA), _draw(count, math.log(RATIO[0]), math.log(RATIO[1])).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    across, down = (
        _draw(count, -1, 1) * (1 - width),
        _draw(count, -1, 1) * (1 - height),
    )  # the crop's centre; the image reaches from -1 to 1
    width = width * (torch.rand(count) < 0.5).float().mul(-2).add(1)
    zero = torch.zeros(count)
    crop = torch.stack([torch.stack([width, zero, across], -1), torch.stack([zero, height, down], -1)], 1)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()], -1), torch.stack([angle.sin(), angle.cos()], -1)], 1)
    grid = affine_grid((turn @ crop).to(images.device), [count, 3, size, size], align_corners=False)
    return grid_sample(images - FILL, grid, mode="bilinear", align_corners=False) + FILL


def _coloured(images: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue, in this order."""

    def factor(spread: float) -> Tensor:
        return _draw(len(images), 1 - spread, 1 + spread).view(-1, 1, 1, 1).to(images.device)

    luma = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
    images = (images * factor(BRIGHTNESS)).clamp(0, 1)
    mean = (images * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    images = (mean + (images - mean) * factor(CONTRAST)).clamp(0, 1)
    gray = (images * luma).sum(1, keepdim=True)
    images = (gray + (images - gray) * factor(SATURATION)).clamp(0, 1)
    turned = torch.einsum("bij,bjhw->bihw", _hues(len(images)).to(images.device), images)
    return turned.clamp(0, 1)


def _hues(count: int) -> Tensor:
    """Return `count` random changes of the hue, as matrices (count, 3, 3) that multiply RGB values.

    Each matrix is a rotation about the grey axis of the RGB space (Rodrigues' formula).
    """
    angle = _draw(count, -2 * math.pi * HUE, 2 * math.pi * HUE).view(-1, 1, 1)
    third = math.sqrt(1 / 3)
    axis = torch.tensor([[0, -third, third], [third, 0, -third], [-third, third, 0]])
    return angle.cos() * torch.eye(3) + angle.sin() * axis + (1 - angle.cos()) / 3
