"""Find which files in a user's folder are photographs, which belong to other programs, and where links lead.

Curation and digests both use this module. A digest therefore covers exactly the files that stages read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath


@dataclass(frozen=True)
class Format:
    """An image format: its name in Pillow, its suffixes, and what Pillow needs to read the format.

    `feature` is an optional part of Pillow (PIL.features). `package` is another package that Pillow needs.
    """

    name: str
    suffixes: tuple[str, ...]
    feature: str = ""
    package: str = ""


# Only these formats are read. Some of Pillow's other formats start programs (EPS). Pillow reports some JPEGs as MPO.
FORMATS = (
    Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")),
    Format("PNG", (".png",)),
    Format("BMP", (".bmp",)),
    Format("TIFF", (".tif", ".tiff")),
    Format("WEBP", (".webp",), feature="webp"),
    Format("GIF", (".gif",)),
    Format("JPEG2000", (".jp2", ".j2k"), feature="jpg_2000"),
    Format("AVIF", (".avif",), feature="avif"),
    Format("HEIF", (".heic", ".heif"), package="pi_heif"),
)
SUFFIXES = frozenset(suffix for known in FORMATS for suffix in known.suffixes)

# Folders of Synology, Windows, macOS, desktops, Jupyter and hubs; none holds a user's photographs.
_FOREIGN_FOLDERS = frozenset(
    {"@eaDir", "#recycle", "__MACOSX", "__pycache__", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
)
_FOREIGN_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})
_READ_THOUGH_HIDDEN = frozenset({".metadata"})  # the index of a PyTorch checkpoint, which Megatron's loader reads

# A broken link, a loop of links, or a link to a folder of another user has no content. Any other error is raised.
NO_CONTENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES}

FOREIGN, HIDDEN = "of other programs", "hidden"
OUTSIDE = "a link that leads outside the volume"
LISTED = 20  # at most this many names are listed for each reason; all are counted


def of_other_program(name: str) -> bool:
    """Return whether a file or folder of this name belongs to another program (a thumbnail cache, macOS metadata)."""
    return (
        name in _FOREIGN_FOLDERS
        or name.lower() in _FOREIGN_FILES
        or name.startswith("._")
        or name in (".DS_Store", ".thumbnails", ".ipynb_checkpoints", ".cache", ".Trashes", ".Spotlight-V100")
    )


def passed_over(name: str) -> str:
    """Return why no stage reads a file or folder of this name, or '' if a stage may read it."""
    if of_other_program(name):
        return FOREIGN
    return HIDDEN if name.startswith(".") and name not in _READ_THOUGH_HIDDEN else ""


def boundary_of(folder: Path, volume: Path | None = None) -> Path:
    """Return the folder that links must not leave: the volume if it contains `folder`, otherwise `folder` itself.

    Without `volume`, the launcher's volume (VASEVQA_VOLUME) is used.
    """
    given = volume or (Path(os.environ["VASEVQA_VOLUME"]) if os.environ.get("VASEVQA_VOLUME") else None)
    if given is not None and folder.resolve().is_relative_to(given.resolve()):
        return given.resolve()
    return folder.resolve()


def leads_out(link: Path, boundary: Path) -> bool:
    """Return whether a link leads outside `boundary`. A loop of links doesn't lead outside."""
    return not Path(os.path.realpath(link)).is_relative_to(boundary)


def is_photograph(name: str) -> bool:
    """Return whether a file name has the suffix of an image."""
    return PurePath(name).suffix.lower() in SUFFIXES


def listed(root: Path, boundary: Path) -> Iterator[tuple[str, os.stat_result | None]]:
    """Yield relative names and stat results of the files below `root` that a stage may read, in a fixed order.

    If a link to a folder or to an image leads out of `boundary`, it is not followed and its stat result is None.
    Stages list such a link but don't open it. Links to other files may lead out of `boundary`: in the cache of a model
    hub, for example, the weights are links. Each folder is visited once.
    """
    seen: set[tuple[int, int]] = set()
    pending = [(os.fspath(root), "")]
    while pending:
        folder, prefix = pending.pop()
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
        for entry in entries:
            if passed_over(entry.name):
                continue
            try:
                is_folder, status = entry.is_dir(), entry.stat()
            except OSError as error:
                if error.errno in NO_CONTENT:
                    continue
                raise
            if (
                entry.is_symlink()
                and (is_folder or is_photograph(entry.name))
                and leads_out(Path(entry.path), boundary)
            ):
                yield prefix + entry.name, None
            elif is_folder:
                pending.append((entry.path, f"{prefix}{entry.name}/"))
            elif stat.S_ISREG(status.st_mode):
                yield prefix + entry.name, status


@dataclass
class PassedOver:
    """Files and folders that stages don't read.

    For each reason, `counts` holds the number of files and folders, and `names` holds the first of their names.
    """

    counts: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, reason: str) -> None:
        """Count the file or folder `name`, which is not read because of `reason`. The name may be invalid UTF-8."""
        self.counts[reason] += 1
        first = self.names.setdefault(reason, [])
        if len(first) < LISTED:
            first.append(name.encode("utf-8", "backslashreplace").decode())

    def sentence(self) -> str:
        """Return a text that counts the files and folders by reason. Return '' if there are none.

        An example is `3 other files: 2 .heic need the package pi-heif, 1 .txt`.
        """
        if not self.counts:
            return ""
        total = self.counts.total()
        kinds = [
            f"{count} {reason if count > 1 else reason.replace(' need ', ' needs ')}"
            for reason, count in sorted(self.counts.items(), key=lambda item: (-item[1], item))
        ]
        return f"{total} other file{'s' if total > 1 else ''}: {', '.join(kinds)}"

    def after(self) -> str:
        """Return '; ' and the text that the method `sentence` returns. Return '' if that text is empty.

        The result is appended to another sentence.
        """
        return f"; {self.sentence()}" if self.counts else ""

    def hint(self) -> str:
        """Return the text that the method `sentence` returns, in brackets. Return '' if that text is empty.

        Error messages about a folder without photographs contain the result.
        """
        return f" ({self.sentence()})" if self.counts else ""
