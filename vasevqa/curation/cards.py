"""Detect photographs that probably show a colour card or a scale bar.

Both detectors are simple rules: each can miss a card or a bar, and each can report one that isn't there.

A colour card has patches of many hues, with edges between the patches. The detector looks for an area in which at least
`HUES` of the six main hues have flat patches. Vases are red, orange and yellow. They hardly ever have green, cyan, blue
and magenta areas beside each other. A card that has only grey patches isn't found.

A scale bar is a row of dark and bright blocks without colour. The blocks alternate and have equal lengths. The detector
looks for at least `RUNS` such blocks in an outer third of the photograph. At least `ROWS` rows (or columns) of pixels
must show them. The first and the last block may run into a backdrop of the same tone. A meander or a chequerboard in an
outer third of a black-and-white photograph is reported too.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops
from scipy.ndimage import uniform_filter

HUES = 5  # of 6
VIVID, LIT = 110, 60  # minimum saturation and value of a patch, of 255
FLAT, EDGE = 14, 40  # greatest difference of neighbouring pixels in a patch, and least difference at an edge
PATCH, EDGES = 0.008, 0.03  # minimum shares of each hue and of edges in the window
WINDOWS = (6, 3)  # the sides of the windows are these parts of the longer side
RUNS = 5
ROWS = 6
SHORTEST = 5  # pixels of a block
UNEVEN = 0.2  # greatest relative deviation of a block's length
SMOOTH = 2  # pixels between two blocks that may be neither dark nor bright
COLOURS, DETAILS = 512, 1024  # pixels of the longer side


def suspected(image: Image.Image) -> tuple[bool, bool]:
    """Return whether an RGB picture probably shows a colour card, and whether it probably shows a scale bar."""
    detailed = _reduced(image, DETAILS)
    return _colour_card(_reduced(detailed, COLOURS)), _scale_bar(detailed)


def _reduced(image: Image.Image, side: int) -> Image.Image:
    factor = -(-max(image.size) // side)
    return image.reduce(factor) if factor > 1 else image


def _colour_card(image: Image.Image) -> bool:
    if min(image.size) < 2 * max(WINDOWS):
        return False
    hue, saturation, value = (np.asarray(band) for band in image.convert("HSV").split())
    vivid = (saturation >= VIVID) & (value >= LIT)
    sixth = ((hue + np.uint8(21)).astype(np.uint16) * 6) >> 8  # 0 is red from -30 to 30 degrees
    if np.count_nonzero(np.bincount(sixth[vivid], minlength=6)) < HUES:
        return False
    steps = _steps(image)
    patch = vivid & (steps <= FLAT)
    masks = [patch & (sixth == number) for number in range(6)]
    for part in WINDOWS:
        side = max(image.size) // part
        edges = _share(steps >= EDGE, side) >= EDGES
        if (np.sum([_share(mark, side) >= PATCH for mark in masks], axis=0)[edges] >= HUES).any():
            return True
    return False


def _steps(image: Image.Image) -> np.ndarray:
    """Return, for each pixel, the greatest difference between one of its colour values and that of a neighbour.

    The neighbours are the pixel to the right and the pixel below.
    """
    steps = np.zeros((image.height, image.width), dtype=np.int16)
    for band in image.split():
        values = np.asarray(band, dtype=np.int16)
        for near, here in ((values[:, 1:], np.s_[:, :-1]), (values[1:], np.s_[:-1])):
            np.maximum(steps[here], np.abs(near - values[here]), out=steps[here])
    return steps


def _share(mark: np.ndarray, side: int) -> np.ndarray:
    """Return the share of marked pixels in the square window around each pixel."""
    return np.asarray(uniform_filter(mark.astype(np.float32), side, mode="constant"))


def _scale_bar(image: Image.Image) -> bool:
    red, green, blue = image.split()
    brightest = np.asarray(ImageChops.lighter(ImageChops.lighter(red, green), blue))
    darkest = np.asarray(ImageChops.darker(ImageChops.darker(red, green), blue))
    white = max(int(np.percentile(darkest[::4, ::4], 99)), 100)
    tones = (darkest > white * 7 // 10).view(np.int8) - (brightest < white * 35 // 100).view(np.int8)
    return _bar_in_outer_rows(tones) or _bar_in_outer_rows(np.ascontiguousarray(tones.T))


def _bar_in_outer_rows(tones: np.ndarray) -> bool:
    third = len(tones) // 3
    return _bar(tones[:third]) or _bar(tones[len(tones) - third :])


def _bar(tones: np.ndarray) -> bool:
    """Return whether a scale bar lies across `tones`, whose values are -1 (dark), 1 (bright) or 0 (other).

    `ROWS` neighbouring rows must have `RUNS` alternating blocks of equal length, at the same place in each row.
    """
    rows, columns = tones.shape
    if rows < ROWS or columns < RUNS * SHORTEST:
        return False
    lines = np.pad(tones, ((0, 0), (0, SMOOTH + 1))).ravel()  # a gap, so that no block goes on in the next row
    starts = np.concatenate([[0], np.flatnonzero(np.diff(lines)) + 1])
    lengths = np.diff(np.append(starts, len(lines)))
    tone = lines[starts]
    kept = (tone != 0) | (lengths > SMOOTH)
    starts, tone = starts[kept], tone[kept]
    ends = starts + lengths[kept]
    count = len(starts) - RUNS + 1
    if count < 1:
        return False
    alternate = tone[:-1] * tone[1:] == -1
    # The first and the last block may run into a background of the same tone, so only their inner ends are compared.
    inner = np.stack([ends[number : number + count] for number in range(RUNS - 1)])
    pitch = np.diff(inner, axis=0)
    mean = pitch.mean(0)
    found = (np.abs(pitch - mean) <= np.maximum(UNEVEN * mean, 1)).all(0) & (mean >= SHORTEST)
    for number in range(RUNS - 1):
        found &= alternate[number : number + count]
    if np.count_nonzero(found) < ROWS:
        return False
    outer = (lengths[kept][:count], lengths[kept][RUNS - 1 :])
    found &= (outer[0] >= (1 - UNEVEN) * mean - 1) & (outer[1] >= (1 - UNEVEN) * mean - 1)
    marks = np.zeros((rows, columns + SMOOTH + 1), dtype=np.float32)
    marks.ravel()[inner[0][found]] = 1
    wide = uniform_filter(marks, (1, 5), mode="constant") > 0
    together = wide[: rows - ROWS + 1].copy()
    for number in range(1, ROWS):
        together &= wide[number : rows - ROWS + 1 + number]
    return bool(together.any())
