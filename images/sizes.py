"""Measure the images on this machine, and write the README's table of sizes: `python -m images.sizes`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from images import names
from images.engine import Engine, EngineError

README = names.ROOT / "README.md"
BEGIN, END = "<!-- image sizes: written by `make image-sizes` -->", "<!-- end of image sizes -->"


@dataclass(frozen=True)
class Measured:
    """The size of an image in bytes, and the digests of its layers, lowest first."""

    name: str
    size: int
    layers: tuple[str, ...]


def measure(engine: Engine, tag: str = "latest") -> list[Measured]:
    """Return the sizes of the images on this machine, shared layers first.

    Raise EngineError if none of the images is on this machine.
    """
    wanted = [*names.SHARED, *names.image_names()]
    found = []
    for name in wanted:
        for image in engine.inspect(f"vasevqa/{name}:{tag}"):
            found.append(Measured(name, int(image["Size"]), tuple(image["RootFS"]["Layers"])))
    if not found:
        raise EngineError(f"There is no image vasevqa/...:{tag} on this machine; run `make images` first.")
    return found


def _below(image: Measured, images: Sequence[Measured]) -> Measured | None:
    """Return the largest shared layer that `image` is built on."""
    shared = [
        other
        for other in images
        if other.name in names.SHARED and other.name != image.name and image.layers[: len(other.layers)] == other.layers
    ]
    return max(shared, key=lambda other: len(other.layers), default=None)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e7 else f"{size / 1e6:.1f} MB"


def table(images: Sequence[Measured]) -> str:
    """Return a Markdown table of the sizes.

    Each row has an image's size, its shared layer, and the size that the image adds to this layer. The last row has the
    size of all images together on one machine.
    """
    rows = ["| image | size | on the layer | adds to it |", "|---|--:|---|--:|"]
    blocks: dict[tuple[str, ...], int] = {}
    for image in images:
        below = _below(image, images)
        own = image.size - (below.size if below else 0)
        blocks.setdefault(image.layers, own)  # images with the same layers are on disk only once
        name = f"*{image.name}* (shared)" if image.name in names.SHARED else f"`{image.name}`"
        rows.append(
            f"| {name} | {_megabytes(image.size)} | {below.name if below else 'the base image'} | {_megabytes(own)} |"
        )
    rows.append(f"| all on one machine | {_megabytes(sum(blocks.values()))} | | |")
    return "\n".join(rows)


def write(text: str, path: Path = README) -> None:
    """Write the table between the marks BEGIN and END in the file `path`."""
    page = path.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def main() -> int:
    """Measure the images, write the table to the README, and print it. Return the exit code."""
    try:
        text = table(measure(Engine()))
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
