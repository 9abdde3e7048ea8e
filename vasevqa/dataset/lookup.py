"""Find the picture that an annotation names: first by the exact name, then by equivalent spellings."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from vasevqa.curation.file_names import plain
from vasevqa.curation.images import SUFFIXES

LEFT = "left the volume"
NO_IMAGE = "row without an image"
SEPARATORS = "|;,\n"
_DECIMAL = re.compile(r"(\d+)\.0+")


class Index:
    """An index of pictures by relative path, file name, stem and vase.

    Two names can match although they differ, for example in case. `lenient` counts such matches by the kind of
    difference.
    """

    def __init__(
        self,
        names: Sequence[str],
        vases: Sequence[str],
        roots: Sequence[Path],
        vase_of: Callable[[str], str] = lambda name: name,
    ) -> None:
        self._names, self._ids, self._vase_of = names, vases, vase_of
        self._roots = [PurePosixPath(root.absolute().as_posix()) for root in roots]
        self._exact: list[dict[str, list[int]]] = [defaultdict(list) for _ in range(4)]
        self._plain: list[dict[str, set[int]]] = [defaultdict(set) for _ in range(4)]
        for number, (name, vase) in enumerate(zip(names, vases, strict=True)):
            path = PurePosixPath(name)
            for table, lenient, key in zip(
                self._exact, self._plain, (path.as_posix(), path.name, path.stem, vase), strict=True
            ):
                table[key].append(number)
                lenient[_same(key)].add(number)
        # If two vase ids differ only in case, the case-insensitive key is ambiguous and matches neither vase.
        spelt: dict[str, set[str]] = defaultdict(set)
        for vase in vases:
            spelt[_same(vase)].add(vase)
        self._vases = {key: next(iter(ids)) for key, ids in spelt.items() if len(ids) == 1}
        self.lenient: Counter[str] = Counter()

    def vase(self, vase: str) -> list[int]:
        """Return the indices of the pictures of a vase, or [] if the vase has no picture."""
        exact = self._exact[3].get(vase)
        if exact:
            return exact
        for key, why in ((_same(vase), "Unicode form or case"), (_same(_whole(vase)), "decimal point")):
            if key in self._vases:
                self.lenient[why] += 1
                return self._exact[3][self._vases[key]]
        for key in dict.fromkeys((_same(vase), _same(_whole(vase)))):
            named = self._plain[2].get(key, set())
            if len(named) == 1:
                self.lenient["photograph named like the vase"] += 1
                return list(named)
        return []

    def images(self, cell: str) -> list[tuple[str, int | str]]:
        """Return (name, index of the picture) for each name in a table's cell.

        If a name has no picture, the kind of problem takes the place of the index. If the whole cell is the name of a
        picture, the cell is not split. Otherwise it is split at the first separator that gives names of pictures.
        """
        whole = self._image(cell)
        if isinstance(whole, int):
            return [(cell, whole)]
        for separator in SEPARATORS:
            parts = [part.strip() for part in cell.split(separator) if part.strip()]
            if len(parts) < 2:
                continue
            answers = [(part, self._image(part)) for part in parts]
            matched = sum(isinstance(answer, int) for _, answer in answers)
            # Museum numbers also contain commas (1836,0224.127), so a part must look like a file name.
            if matched == len(parts) or (matched and (separator != "," or all(map(_looks_like_a_file, parts)))):
                self.lenient["several images in one cell"] += 1
                return answers
        return [(cell, whole)]

    def _image(self, written: str) -> int | str:
        path = PurePosixPath(local_path(written.strip()))
        left = ".." in path.parts
        if path.is_absolute():
            below = next((root for root in self._roots if path.is_relative_to(root)), None)
            left = below is None
            path = path.relative_to(below) if below is not None else path
        if not path.name:
            return NO_IMAGE
        for key_table, key in self._keys(path, left):
            numbers = self._exact[key_table].get(key, [])
            if len(numbers) == 1 and not self._contradicts(path, numbers[0]):
                return numbers[0]
        for key_table, key in self._keys(path, left):
            near = self._plain[key_table].get(_same(key), set())
            if len(near) == 1 and not self._contradicts(path, *near):
                self.lenient["Unicode form or case"] += 1
                return next(iter(near))
        whole = _whole(path.name)
        if whole != path.name and len(self._plain[2].get(_same(whole), ())) == 1:
            self.lenient["decimal point"] += 1
            return next(iter(self._plain[2][_same(whole)]))
        return LEFT if left and not _is_url(written) else NO_IMAGE

    def _contradicts(self, path: PurePosixPath, number: int) -> bool:
        """Return whether a path in an annotation names a vase other than the vase of a picture.

        `number` is the index of the picture. For example, the path `V07/front.jpg` doesn't mean the picture
        `V00/front.jpg`, even if no other picture has the name front.jpg.
        """
        name, vase = self._names[number], self._ids[number]
        if len(path.parts) < 2 or vase == plain(name):
            return False
        tails = ["/".join(path.parts[-length:]) for length in (1, 2, 3)]
        told = {told for tail in tails if (told := self._vase_of(tail)) != plain(tail)}
        return bool(told) and vase not in told

    def _keys(self, path: PurePosixPath, left: bool) -> Iterator[tuple[int, str]]:
        """Yield (number of an index table, key) for each way to look up a path, the most specific first."""
        for length in range(len(path.parts) if not left else 0, 0, -1):
            yield 0, PurePosixPath(*path.parts[-length:]).as_posix()
        yield 1, path.name
        yield 2, path.name  # `06.1021.114` is an accession number without a suffix
        if path.suffix.lower() in SUFFIXES:
            yield 2, path.stem


def _looks_like_a_file(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _is_url(written: str) -> bool:
    return written.strip().lower().startswith(("http://", "https://"))


def local_path(written: str) -> str:
    """Convert a Windows path or a URL to a path with forward slashes."""
    if _is_url(written) or written.lower().startswith("file://"):
        try:
            address = urlsplit(written)
        except ValueError:  # such as https://[museum]/0.jpg
            return written
        return unquote(address.path) if address.scheme == "file" or address.path else written
    return re.sub(r"^[A-Za-z]:(?=[\\/])", "", written).replace("\\", "/")


def _same(key: str) -> str:
    """Return a key that ignores differences in Unicode form, case and white space."""
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", key).casefold()).split())


def _whole(key: str) -> str:
    """Remove the decimal point from a whole number. For example, `10023.0` in a spreadsheet becomes `10023`."""
    match = _DECIMAL.fullmatch(key.strip())
    return match[1] if match else key
