"""Make ms-swift open pictures with this project's decoder, as curation and evaluation do.

ms-swift's own loader ignores the EXIF orientation, clips 16-bit values to white, and draws transparent
pictures on a black background.
"""

from __future__ import annotations

import base64
import binascii
import functools
import inspect
import os
import re
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from vasevqa import files
from vasevqa.curation.images import Unreadable, decode_image, open_image
from vasevqa.errors import ConfigError, DataError

SHORTEST_PICTURE, LONGEST_PATH = 100, 2000  # characters; a text longer than LONGEST_PATH is base64

_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}")  # without the dot of a file's suffix


def use_our_decoder() -> None:
    """Replace ms-swift's loader of pictures in this process, for every template and mode.

    Raise ConfigError if this version of ms-swift loads pictures in an unknown way.
    """
    from swift.template import base, vision_utils

    template = base.Template
    asked = inspect.signature(template._load_image).parameters
    if list(asked) != ["image", "load_images"] or "self._load_image(" not in inspect.getsource(
        template._preprocess_inputs
    ):
        raise ConfigError(
            "This version of ms-swift opens pictures in an unknown way, so training and evaluation might see different"
            " pictures; install the version that locks/training.txt names."
        )
    replaced = vision_utils.load_image
    # Loaded modules hold their own reference to the function. Later modules import it from vision_utils.
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "swift" and vars(module).get("load_image") is replaced:
            module.load_image = load_picture  # type: ignore[attr-defined]
    vision_utils.load_batch.__defaults__ = (load_picture,)
    template._load_image = staticmethod(_load_for_template)
    preprocess = template._preprocess_inputs

    @functools.wraps(preprocess)
    def preprocess_inputs(self: Any, inputs: Any) -> None:
        try:
            preprocess(self, inputs)
        except Unreadable as error:
            raise DataError(
                f"{error.reason}{_question(inputs)}; correct the file, or build the dataset again."
            ) from None

    if not hasattr(preprocess, "__wrapped__"):
        template._preprocess_inputs = preprocess_inputs


def _question(inputs: Any) -> str:
    """Return the part of a sentence that identifies a row by its first question.

    A line number can't be given, because ms-swift shuffles the rows.
    """
    said = next((turn.get("content") for turn in inputs.messages or [] if turn.get("role") == "user"), None)
    return f", in the row that asks {said.strip()[:60]!r}" if isinstance(said, str) else ""


def _load_for_template(image: Any, load_images: bool) -> Image.Image:
    """Return the decoded picture, even if the template asks for the path of the picture.

    If the template got a path, another library would decode the picture.
    """
    return load_picture(image)


def load_picture(image: Any) -> Image.Image:
    """Return a row's picture, decoded in the same way as in curation and evaluation.

    `image` is a path (relative to ROOT_IMAGE_DIR, as in the evaluation), a data: URL, base64, bytes, a mapping with
    `bytes` and `path`, or an image.

    Raise Unreadable if the picture can't be read; the reason names the picture. Web addresses are also refused, because
    a training downloads nothing.
    """
    if isinstance(image, dict):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, Image.Image):
        return image if image.mode == "RGB" else image.convert("RGB")
    if isinstance(image, bytes | bytearray | memoryview):
        return _named("bytes", lambda: decode_image(bytes(image)))
    if not isinstance(image, str | os.PathLike):
        raise Unreadable(f"A picture is given as {type(image).__name__}, but must be a path or bytes")
    written = os.fspath(image).strip()
    if written.lower().startswith(("http://", "https://")):
        raise Unreadable(f"The picture {written[:120]} has a web address, but a training downloads nothing")
    if written.startswith("data:"):
        return _named("data: URL", lambda: decode_image(_unpacked(written.partition(",")[2])))
    path = _place(written)
    if path is None:
        return _named("base64", lambda: decode_image(_unpacked(written)))
    return _named(str(path), lambda: open_image(path))


def _named(what: str, decode: Any) -> Image.Image:
    try:
        found: Image.Image = decode()
        return found
    except Unreadable as error:
        raise Unreadable(f"The picture {what} can't be read ({error.reason})") from None


def _place(written: str) -> Path | None:
    """Return the path of the picture that a row gives as the text `written`. Return None if the text is base64."""
    if len(written) > LONGEST_PATH:
        return None
    root = os.environ.get("ROOT_IMAGE_DIR")
    given = files.expanded(written.removeprefix("file://"))
    path = Path(root) / given if root else given
    if not files.exists(path) and files.exists(given):
        path = given
    if len(written) > SHORTEST_PICTURE and not files.exists(path) and _BASE64.fullmatch(written):
        return None
    return path.absolute()


def _unpacked(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Unreadable("its base64 is broken") from None
