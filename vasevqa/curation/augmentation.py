"""Random variations of photographs for training, of a whole batch at once and on the model's device.

torchvision's transforms vary a batch by one draw or take its images one by one, which keeps a GPU waiting: the geometry
is one resampling here (Jaderberg et al., "Spatial Transformer Networks", 2015), the colours are products.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

DEGREES = 10.0
AREA = (0.7, 1.0)  # of the crop, as a part of the image's
RATIO = (0.9, 1.1)  # of its sides
BRIGHTNESS = CONTRAST = SATURATION = 0.2
HUE = 0.02  # of a whole turn
FILL = 127 / 255  # what a rotation brings in from outside
LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601


def augmented(pixels: Tensor, size: int) -> Tensor:
    """Each image of a batch cropped, rotated, flipped and coloured by a draw of its own.

    `pixels` (B, 3, S, S) is uint8; the result (B, 3, size, size) is float32 within 0 to 1, on the same device. The
    draws come from the CPU's generator, so that a seed varies images alike on every device.
    """
    varied = _moved(pixels.float() / 255, size)
    return _coloured(varied)


def _draw(count: int, low: float, high: float) -> Tensor:
    return torch.empty(count).uniform_(low, high)


def _moved(images: Tensor, size: int) -> Tensor:
    """A crop of a rotated image, perhaps mirrored: where each of its pixels comes from."""
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
    """Brightness, contrast, saturation and hue, in this order."""

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
    """Rotations about the axis of grays (B, 3, 3), by Rodrigues' formula."""
    angle = _draw(count, -2 * math.pi * HUE, 2 * math.pi * HUE).view(-1, 1, 1)
    third = math.sqrt(1 / 3)
    axis = torch.tensor([[0, -third, third], [third, 0, -third], [-third, third, 0]])
    return angle.cos() * torch.eye(3) + angle.sin() * axis + (1 - angle.cos()) / 3
