"""Measure the size, sharpness, exposure and frame of photographs, and find suspected cards and near-duplicates.

The results are called the data checks of a photograph.

- Sharpness is measured on the luminance at full resolution. The luminance is first smoothed by a binomial 3 x 3 filter,
  because noise would otherwise count as detail. Sharpness is the variance of the Laplacian, in squared grey levels,
  times the square root of the number of megapixels. (The variance is called LAPV in Pech-Pacheco et al., "Diatom
  autofocusing in brightfield microscopy", 2000, and in Pertuz et al., "Analysis of focus measure operators for
  shape-from-focus", 2013.) The square root makes photographs of different sizes comparable: the longer the sides, the
  smaller the share of pixels at sharp edges. For drawings of vases with sides of 288 to 1,400 pixels, the median
  sharpness is 35 to 53. For blurred drawings, it is 3 to 9. Dark or plain photographs have low values too.
- Brightness is the mean luminance from 0 to 1.
- There are two clipped shares: the share of pixels with a luminance of at most `DARK`, and the share of pixels with a
  luminance of at least `BRIGHT`. The pixels of a pure black or white backdrop are included.
- The frame is made of single-tone rows and columns at the picture's edges. The value `frame` is the share of the
  picture that belongs to the frame. A plain backdrop that reaches the edges is part of the frame.
- The module curation.cards detects colour cards and scale bars.
- Two photographs are near-duplicates if their hashes (curation.hashes) differ in at most `DISTANCE` bits. By default,
  build-dataset uses the same limit.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vasevqa import files
from vasevqa.curation import cards
from vasevqa.curation.decoding import open_luminance
from vasevqa.curation.hashes import difference_hash, near_duplicates
from vasevqa.curation.images import Unreadable
from vasevqa.curation.reports import DataChecks, ScoredImage

if TYPE_CHECKING:
    from vasevqa.spec import Output

FILE = "checks.csv"
DARK, BRIGHT = 2, 253  # of 255
DISTANCE = 8
MEASURED = 4_000_000  # pixels; of a larger photograph, evenly spaced bands of full resolution are measured
BAND = 32  # rows
FRAME_SIDE = 512  # pixels
ONE_TONE, SAME_TONE = 2.0, 6.0  # grey levels: deviation inside a row of the frame, and difference between its rows
_STORED = struct.Struct("<IIfffff?B32s")
SIZE = _STORED.size
ABSENT = bytes(SIZE)


def measure(path: Path, decoded: Image.Image, reduced: bool = True) -> bytes:
    """Return the data checks of a photograph, packed into `SIZE` bytes.

    Return `ABSENT` if the photograph can't be decoded at full size. `decoded` is the image that open_image returned. If
    `reduced` is False, `decoded` must have the full size of the picture in the file.
    """
    try:
        luminance = open_luminance(path, decoded) if reduced else decoded.convert("L")
        return _measured(luminance, decoded)
    except (Unreadable, MemoryError):  # the photograph is still scored, but without checks
        return ABSENT


def _measured(luminance: Image.Image, decoded: Image.Image) -> bytes:
    counts = np.array(luminance.histogram(), dtype=np.float64) / (luminance.width * luminance.height)
    small = luminance.reduce(max(1, -(-max(luminance.size) // FRAME_SIDE)))
    card, bar = cards.suspected(decoded)
    return _STORED.pack(
        luminance.width,
        luminance.height,
        sharpness(luminance),
        float(counts @ np.arange(256)) / 255,
        counts[: DARK + 1].sum(),
        counts[BRIGHT:].sum(),
        frame(np.asarray(small)),
        card,
        bar,
        difference_hash(small).tobytes(),
    )


def sharpness(luminance: Image.Image) -> float:
    """Return the sharpness of a luminance image (mode L), as the module's docstring defines it."""
    width, height = luminance.size
    if min(height, width) < 5:
        return 0.0
    total = squares = 0.0
    count = 0
    for begin in _bands(height, width):
        some = np.asarray(luminance.crop((0, begin, width, min(begin + BAND + 4, height))), dtype=np.int16)
        smooth = some[:-2] + 2 * some[1:-1] + some[2:]
        smooth = smooth[:, :-2] + 2 * smooth[:, 1:-1] + smooth[:, 2:]  # 16 times the smoothed luminance
        laplacian = smooth[1:-1, 1:-1] * -4
        for side in (smooth[:-2, 1:-1], smooth[2:, 1:-1], smooth[1:-1, :-2], smooth[1:-1, 2:]):
            laplacian += side
        values = laplacian.ravel().astype(np.float32)
        total += float(values.sum(dtype=np.float64))
        squares += float(values @ values)
        count += values.size
    variance = (squares / count - (total / count) ** 2) / 16**2
    return max(variance, 0.0) * float(np.sqrt(height * width / 1e6))


def _bands(height: int, width: int) -> Iterator[int]:
    """Yield the number of the first row of each band that `sharpness` measures.

    A band has `BAND` rows. In a large photograph, only some of the bands are measured. These bands are evenly spaced.
    """
    starts = range(0, height - 4, BAND)
    every = max(1, -(-height * width // MEASURED))
    yield from starts[(every - 1) // 2 :: every] or starts[:1]


def frame(pixels: np.ndarray) -> float:
    """Return the share of a luminance image (H, W) that belongs to its frame.

    The frame is made of single-tone rows and columns at the image's edges.
    """
    top, bottom = _edge(pixels), _edge(pixels[::-1])
    if top == len(pixels):
        return 1.0
    inner = pixels[top : len(pixels) - bottom].T
    left, right = _edge(inner), _edge(inner[::-1])
    height, width = pixels.shape
    return 1 - max(height - top - bottom, 0) * max(width - left - right, 0) / (height * width)


def _edge(rows: np.ndarray) -> int:
    """Return how many rows at the top are uniform and have the same tone as the first row."""
    values = rows.astype(np.float32)
    plain = (values.std(1) <= ONE_TONE) & (np.abs(values.mean(1) - values[0].mean()) <= SAME_TONE)
    return len(plain) if plain.all() else int(plain.argmin())


@dataclass(frozen=True)
class Limits:
    """The limits of the data checks, from clip-filter's parameters. A limit of None is not applied."""

    min_side: int | None = None
    min_sharpness: float | None = None
    max_clipped: float | None = None

    def failed(self, checks: DataChecks) -> str:
        """Return a text that lists the limits that a photograph violates, or '' if there are none.

        A missing value violates no limit.
        """
        found = []
        if self.min_side and checks.width and checks.height and min(checks.width, checks.height) < self.min_side:
            found.append(f"shorter side {min(checks.width, checks.height)} px < min_side {self.min_side}")
        if self.min_sharpness and checks.sharpness is not None and checks.sharpness < self.min_sharpness:
            found.append(f"sharpness {checks.sharpness:g} < min_sharpness {self.min_sharpness:g}")
        clipped = max(checks.clipped_dark or 0.0, checks.clipped_bright or 0.0)
        if self.max_clipped is not None and clipped > self.max_clipped:
            found.append(f"clipped {clipped:g} > max_clipped {self.max_clipped:g}")
        return ", ".join(found)


def read(names: Sequence[str], stored: Sequence[bytes]) -> list[DataChecks]:
    """Unpack the bytes that `measure` returned for each photograph, and find the near-duplicates.

    The result holds the data checks of each photograph, in the order of `names`. If a photograph is a near-duplicate of
    earlier photographs in `names`, its `near_duplicate_of` is the name of the first of them.
    """
    numbers = [number for number, value in enumerate(stored) if value and value != ABSENT]
    found = [DataChecks() for _ in names]
    if not numbers:
        return found
    rows = {number: _STORED.unpack(stored[number]) for number in numbers}
    hashes = np.stack([np.frombuffer(rows[number][-1], dtype=np.uint8) for number in numbers])
    first: dict[int, int] = {}
    for one, other in near_duplicates(hashes, DISTANCE):  # sorted, so the first pair with `other` has the first name
        first.setdefault(other, one)
    for place, number in enumerate(numbers):
        width, height, *values, card, bar, _ = rows[number]
        sharp, bright, *shares = values
        found[number] = DataChecks(
            width=width,
            height=height,
            aspect=round(width / height, 4),
            sharpness=float(f"{sharp:.4g}"),
            brightness=round(bright, 4),
            **dict(zip(("clipped_dark", "clipped_bright", "frame"), (round(one, 5) for one in shares), strict=True)),
            colour_card_suspected=bool(card),
            scale_bar_suspected=bool(bar),
            near_duplicate_of=names[numbers[first[place]]] if place in first else None,
        )
    return found


def applied(rows: Sequence[ScoredImage], checks: Sequence[DataChecks], limits: Limits) -> list[ScoredImage]:
    """Return copies of the rows that also hold the data checks of each photograph.

    A photograph that violates a limit is rejected. The field `failed_check` of its row says why.
    """
    decided = []
    for row, one in zip(rows, checks, strict=True):
        failed = limits.failed(one)
        values = one.model_dump() | {"failed_check": failed, "accepted": row.accepted and not failed}
        decided.append(row.model_copy(update=values))
    return decided


def write(output: Output, rows: Sequence[ScoredImage], unreadable: Iterable[str]) -> None:
    """Write the decision and the data checks of each photograph to checks.csv.

    The row of an unreadable photograph holds only its name.
    """
    header = ("name", "accepted", "score", "failed_check", *DataChecks.model_fields)
    lines = [[getattr(row, column) for column in header] for row in rows]
    with output.writing(FILE, "w") as stream:
        table = [["" if cell is None else cell for cell in line] for line in lines]
        files.write_table(stream, header, [*table, *([name, *[""] * (len(header) - 1)] for name in unreadable)])


def report_lines(checks: Sequence[DataChecks]) -> list[str]:
    """Return lines for a terminal that summarize the data checks.

    The lines show the distribution of each value for which the user can set a limit. The last line counts the suspected
    cards and the near-duplicates.
    """
    there = [one for one in checks if one.width and one.height]
    if not there:
        return []
    columns = {
        "sharpness (--min-sharpness)": [one.sharpness or 0.0 for one in there],
        "shorter side (--min-side)": [float(min(one.width or 0, one.height or 0)) for one in there],
        "clipped share (--max-clipped)": [max(one.clipped_dark or 0.0, one.clipped_bright or 0.0) for one in there],
    }
    lines = []
    for name, values in columns.items():
        low, middle, high = np.percentile(values, (5, 50, 95))
        lines.append(f"{name}: 5% {low:.4g}, median {middle:.4g}, 95% {high:.4g}")
    cards_seen = sum(bool(one.colour_card_suspected or one.scale_bar_suspected) for one in there)
    twins = sum(one.near_duplicate_of is not None for one in there)
    return [*lines, f"suspected colour cards or scale bars: {cards_seen}; near-duplicates: {twins}"]
