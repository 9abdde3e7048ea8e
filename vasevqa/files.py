"""Write files atomically. Place images from artifacts as hard links, and a user's own images as copies."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from vasevqa.errors import storage_error

FICLONE = 0x40049409  # from linux/fs.h: a file shares the extents of another file (btrfs, xfs)
_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}  # the file system has no such call
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}


@contextlib.contextmanager
def writing(
    path: Path, mode: str = "wb", before_commit: Callable[[], None] | None = None, sync: bool = True
) -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`, and rename it to `path` if the block ends without an error.

    `before_commit` is called just before the rename, and may raise an error (such as a lost lease). `sync=False` skips
    fsync. Images don't need it, because all images of an artifact are synced together at the end.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{cut_name(path.name)}.{os.getpid()}.{os.urandom(3).hex()}.tmp"
    encoding = None if "b" in mode else "utf-8"
    try:
        with open(temporary, mode, encoding=encoding) as stream:
            yield stream
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        if before_commit is not None:
            before_commit()
        os.replace(temporary, path)
        if sync:
            sync_folder(path.parent)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename in (None, os.fspath(temporary)):
            error.filename = os.fspath(path)  # the user knows this name
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def sync_folder(path: Path) -> None:
    """Write the names in a folder to the disk, so that a rename survives a power failure. Raise OSError on failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            error.filename = os.fspath(path)
            raise
    finally:
        os.close(descriptor)


def sync_volume(path: Path) -> None:
    """Write all data of the file system that holds `path` to the disk.

    Raise OSError if the file system reports that data could not be written.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syncfs"):
        os.sync()
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if library.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            if number not in _NO_SYNC:
                raise OSError(number, os.strerror(number), os.fspath(path))
            os.sync()
    finally:
        os.close(descriptor)


def protect(path: Path) -> None:
    """Remove all rights to write a file, for its owner too. Do nothing if the file belongs to another user."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o222:
        with contextlib.suppress(PermissionError):
            path.chmod(mode & ~0o222)


def cut_name(name: str, most: int = 80) -> str:
    """Return the beginning of a file name: at most `most` bytes in UTF-8, and only whole characters."""
    return os.fsencode(name)[:most].decode("utf-8", "ignore")


def exists(path: Path) -> bool:
    """Return whether a file or folder exists at `path`.

    Return False for an impossible name (too long, or with a null byte). Raise OSError if the storage fails, or if
    permission is missing.
    """
    try:
        return path.exists()
    except ValueError:
        return False
    except OSError as error:
        if storage_error(error, "read") is not None:
            raise
        return False


def expanded(text: str) -> Path:
    """Return `text` as a path, and replace `~` by the home folder. If the home folder is unknown, `~` is kept."""
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically (UTF-8)."""
    with writing(path, "w") as stream:
        stream.write(text)


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write `value` as JSON to `path` atomically."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False, default=str) + "\n")


def write_table(stream: IO[str], header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows as CSV in the dialect that `read_table` reads. Cells are separated by commas.

    Cells with commas, quotes or line breaks are quoted, so that these characters are kept.
    """
    table, quoted = (csv.writer(stream, lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    for row in (header, *rows):
        # QUOTE_MINIMAL doesn't quote a carriage return, and a reader would take it for the end of the row.
        (quoted if any("\r" in str(cell) for cell in row) else table).writerow(row)


def read_table(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file as mappings from heading to cell. A missing cell has no entry."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        for row in csv.DictReader(stream):
            yield {name: cell for name, cell in row.items() if name is not None and cell is not None}


def copy(source: Path, target: Path) -> str:
    """Copy one file's content and times atomically. The copy is a reflink if the file system supports reflinks.

    Return 'reflink' or 'copy'.
    """
    how = "copy"
    with writing(target, sync=False) as out, open(source, "rb") as stream:
        try:
            fcntl.ioctl(out.fileno(), FICLONE, stream.fileno())
            how = "reflink"
        except OSError:
            shutil.copyfileobj(stream, out, 1 << 20)
        status = os.fstat(stream.fileno())
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    return how


def shares_extents(source: Path, folder: Path) -> bool:
    """Return True if a copy of the file `source` in `folder` would take no space (a reflink)."""
    try:
        with tempfile.TemporaryFile(dir=folder) as out, open(source, "rb") as stream:
            fcntl.ioctl(out.fileno(), FICLONE, stream.fileno())
    except OSError:
        return False
    return True


def immutable_root(path: Path) -> Path | None:
    """Return the complete artifact directory (with artifact.json) that holds `path`, or None."""
    for parent in path.resolve().parents:
        if (parent / "artifact.json").is_file() and parent.parent.parent.name == "artifacts":
            return parent
    return None


def place(source: Path, target: Path, immutable: bool | None = None) -> str:
    """Create `target` as a hard link to `source` if `source` belongs to a complete artifact, otherwise as a copy.

    A user's own file is never hard-linked, because a later edit of the file would change the target as well. The copy
    is a reflink if the file system supports reflinks. `immutable` says whether `source` belongs to a complete artifact;
    None means that the function checks. An existing target is replaced atomically. Return 'link', 'reflink' or 'copy'.
    """
    if immutable is None:
        immutable = immutable_root(source) is not None
    if immutable:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{cut_name(target.name)}.{os.getpid()}.{os.urandom(3).hex()}.tmp"
        try:
            os.link(source, temporary, follow_symlinks=True)
            os.replace(temporary, target)
            temporary.unlink(missing_ok=True)  # rename(2) does nothing if both names are links to one inode
            return "link"
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if error.errno not in _NO_LINK:
                raise
    return copy(source, target)


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as stream:
        hasher = hashlib.sha256()
        while block := stream.read(1 << 20):
            hasher.update(block)
        return hasher.hexdigest()


def digest_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def free_bytes(path: Path) -> int:
    """Return the free bytes for the current user on the file system of `path`.

    If `path` doesn't exist, its nearest existing parent is used.
    """
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
