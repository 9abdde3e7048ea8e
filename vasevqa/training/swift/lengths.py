"""The process that counts the tokens of every row with ms-swift's own template.

The command is `python -m vasevqa.training.swift.lengths SPEC.json`.

The template reads the rows, formats the text and resizes the pictures by its own rules. With Qwen's templates, the
number of tokens depends only on the size of a picture. Such a template therefore gets a blank picture of the same size
instead of the photograph. Each photograph is still decoded once, to find the photographs that can't be decoded.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile

from vasevqa.confidential import Masker
from vasevqa.cores import available_cores
from vasevqa.curation.images import Unreadable, open_image
from vasevqa.errors import DataError, machine_error
from vasevqa.storage import refuse_failed
from vasevqa.text import filtered_output
from vasevqa.training.swift.blame import blame, failure_of
from vasevqa.training.swift.environment import refuse_model_code
from vasevqa.training.swift.messages import LengthsTask, WorkerResult, result_of
from vasevqa.training.swift.worker import die_with_parent

SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
ORIENTATION = 0x0112


def picture_size(path: Path) -> tuple[int, int]:
    """Return the width and height that open_image would give the picture at `path`.

    The picture is decoded, so that a damaged file is found. A JPEG is decoded at an eighth of its size. This also reads
    the whole file, but takes a third of the time of a full decoding.

    Raise Unreadable if the file can't be decoded.
    """
    with open_image(path, cover=1) as decoded:
        size: tuple[int, int] = decoded.size
    with Image.open(path) as header:
        if header.format not in ("JPEG", "MPO"):
            return size
        try:
            sideways = header.getexif().get(ORIENTATION) in SIDEWAYS
        except MemoryError:
            raise
        except Exception:  # open_image then doesn't turn the picture
            sideways = False
        width, height = header.size
    return (height, width) if sideways else (width, height)


class Blank(Image.Image):
    """An RGB picture that has a size but no pixels."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self._mode, self._size = "RGB", size

    def convert(self, *args: Any, **kwargs: Any) -> Image.Image:
        """Return the picture itself."""
        return self

    def resize(self, size: Any, *args: Any, **kwargs: Any) -> Image.Image:
        """Return a blank picture of another size."""
        return Blank((int(size[0]), int(size[1])))


class _Grid:
    """An image processor that only counts the patches of a resized picture and computes no pixels."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __getattr__(self, name: str) -> Any:
        return getattr(self.processor, name)

    def __call__(self, images: list[Image.Image], **kwargs: Any) -> dict[str, object]:
        import torch

        patch = self.processor.patch_size
        grid = [[1, image.height // patch, image.width // patch] for image in images]
        return {"image_grid_thw": torch.tensor(grid)}


class _Pictures:
    """The photographs of the rows. Threads measure their sizes while ms-swift is imported."""

    def __init__(self, root: Path, names: list[str]) -> None:
        # A truncated file must fail, even if another library changed this setting.
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        self.root = root
        self.pool = ThreadPoolExecutor(available_cores())
        self.measured = {name: self.pool.submit(picture_size, root / name) for name in names}

    def name(self, image: Any) -> str:
        """Return the path of a picture, relative to `root`. `image` is the path, or a mapping with `path`."""
        return str(image["path"] if isinstance(image, dict) else image)

    def blank(self, image: Any, load_images: bool) -> Image.Image:
        """Return the blank picture for the template. Raise Unreadable if the photograph can't be decoded."""
        return Blank(self.measured[self.name(image)].result())

    def whole(self, image: Any, load_images: bool) -> Image.Image:
        """Return the photograph itself, for templates that may read its pixels."""
        return open_image(self.root / self.name(image))


def template_of(argv: list[str]) -> tuple[Any, Any]:
    """Return ms-swift's parsed arguments and the template for these arguments, without loading the model's weights."""
    from swift.arguments import BaseArguments
    from swift.utils import parse_args

    arguments, _ = parse_args(BaseArguments, argv)
    _, processor = arguments.get_model_processor(load_model=False)
    template = arguments.get_template(processor)
    template.max_length = None  # the whole length is wanted
    return arguments, template


@contextmanager
def without_pixels(template: Any, pictures: _Pictures) -> Iterator[None]:
    """Inside a `with` block, let a template of Qwen count a picture's tokens from the picture's size alone.

    Other templates get the photographs themselves, because they may count tokens by a different rule.
    """
    from swift.template.templates.qwen import Qwen2VLTemplate

    if not isinstance(template, Qwen2VLTemplate):
        template._load_image = pictures.whole
        yield
        return
    template._load_image = pictures.blank
    real = template.processor.image_processor
    template.processor.image_processor = _Grid(real)
    try:
        yield
    finally:
        template.processor.image_processor = real


def count(task: LengthsTask) -> dict[str, list[tuple[int | None, str]]]:
    """Return a pair for every row of each file in the task.

    The pair is (length in tokens, ''). For a broken row, the pair is (None, reason).
    """
    pictures = _Pictures(Path(task.image_root), task.images)
    try:
        refuse_model_code()
        arguments, template = template_of(task.argv)
        template.set_mode("train" if task.kind == "sft" else "transformers")
        with without_pixels(template, pictures):
            return {path: _lengths(path, rows, arguments, template, task.kind) for path, rows in task.files.items()}
    finally:
        pictures.pool.shutdown(wait=False, cancel_futures=True)


def _lengths(path: str, rows: int, arguments: Any, template: Any, kind: str) -> list[tuple[int | None, str]]:
    from swift.dataset import load_dataset

    try:
        dataset, _ = load_dataset([path], **{**arguments.get_dataset_kwargs(), "strict": True, "streaming": False})
    except Exception as error:
        refuse_failed(error, Path(path))
        traceback.print_exc()
        raise DataError(
            f"ms-swift can't read the rows of {path} ({failure_of(error)}); give every row the same columns and types."
        ) from None
    if len(dataset) != rows:
        raise DataError(
            f"ms-swift reads {len(dataset)} instead of {rows} rows from {path}; give every row the same columns and"
            " types."
        )
    return [_length(row, template, kind) for row in dataset]


def _length(row: Any, template: Any, kind: str) -> tuple[int | None, str]:
    if kind == "grpo" and row["messages"][-1]["role"] == "assistant":
        row["messages"] = row["messages"][:-1]  # as ms-swift does before it generates answers
    try:
        return sum(template.encode(row, return_length=True)["lengths"]), ""
    except Unreadable as error:
        names = [image["path"] for image in row.get("images") or []]
        return None, f"a picture can't be decoded ({error.reason}; one of {', '.join(map(str, names))})"
    except Exception as error:
        if (known := machine_error(error, "read the rows")) is not None:
            raise known from error
        return None, f"ms-swift can't encode the row ({failure_of(error)})"


def main() -> None:
    """Read the task, count the tokens, write the result next to the task, and exit with the result's exit code."""
    die_with_parent()
    spec = Path(sys.argv[1])
    task = LengthsTask.read(spec)
    try:
        ended = WorkerResult(0, figures={"lengths": count(task)})
    except Exception as error:
        traceback.print_exc()
        ended = blame(error, task.model, next(iter(task.files)))
    ended.write(result_of(spec))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ended.exit_code)  # without waiting for threads that still decode pictures


if __name__ == "__main__":
    with filtered_output(Masker(os.environ)):
        main()
