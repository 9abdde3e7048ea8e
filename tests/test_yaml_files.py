"""YAML files of users: an unreadable file is reported at once in one sentence, for recipes and all other kinds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vasevqa.backends.cluster import load_cluster
from vasevqa.curation.scoring import load_prompts
from vasevqa.dataset.questions import load_questions
from vasevqa.errors import ConfigError
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.recipe import load_recipe
from vasevqa.yaml_files import Lines, parse

READERS: dict[str, Callable[[Path], object]] = {
    "recipe": lambda path: load_recipe(path, PIPELINE),
    "Cluster file": load_cluster,
    "prompts file": load_prompts,
    "questions file": load_questions,
}
TEXT = "name: Töpfe\n"


def long_path(folder: Path) -> Path:
    return folder / ("x" * 5000)


def circle(folder: Path) -> Path:
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    return folder / "a"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def written(content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "f.yaml").write_bytes(content)
        return folder / "f.yaml"

    return write


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (long_path, "can't be read (File name too long); give another path"),
        (circle, "can't be read (Too many levels of symbolic links)"),
        (pipe, "is a pipe, socket or device; give a {kind} that is saved as a file"),
        (lambda folder: Path("/dev/zero"), "is a pipe, socket or device"),
        (lambda folder: folder, "is a folder; give a {kind}"),
        (lambda folder: folder / "none", "There is no {kind} "),
        (lambda folder: folder / "null\0byte", "can't be read"),
        (written(TEXT.encode("utf-16")), "is written in UTF-16; save the {kind} in UTF-8"),
        (written(TEXT.encode("utf-16-be")), "is written in UTF-16; save the {kind} in UTF-8"),
        (written(TEXT.encode("utf-32")), "is written in UTF-32; save the {kind} in UTF-8"),
        (written(b"a: 1\n" + TEXT.encode("cp1252")), "line 2: the text is not UTF-8 (perhaps it is Windows-1252)"),
        (written(b"PK\3\4\0\0\xff\xfe"), "is not a text file"),
        (written(b"#" * (2 << 20)), "is larger than 1 MiB; give a {kind}"),
        (written(b"[" * 5000), "is nested too deeply"),
    ],
)
def test_an_unreadable_file_is_reported_in_one_sentence(
    kind: str, make: Callable[[Path], Path], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        READERS[kind](make(tmp_path))
    assert says.format(kind=kind) in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_byte_order_mark_is_not_part_of_a_key(tmp_path: Path) -> None:
    path = written(b"\xef\xbb\xbfregistry: ghcr.io/me\n")(tmp_path)
    assert load_cluster(path).registry == "ghcr.io/me"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (pipe, "the input 'images': {path} is a pipe, socket or device, not a folder; give "),
        (long_path, "the input 'images' does not exist at"),
        (circle, "the input 'images' does not exist at"),
    ],
)
@pytest.mark.parametrize("flag", [False, True])
def test_an_input_that_is_no_file_is_reported_in_one_sentence(
    make: Callable[[Path], Path], says: str, flag: bool, tmp_path: Path
) -> None:
    path, recipe = make(tmp_path), tmp_path / "recipe.yaml"
    recipe.write_text("to: clip-filter\n" + ("" if flag else f"inputs: {{images: {path}}}\n"))
    words = ["--input", f"images={path}"] if flag else []
    ended = subprocess.run(
        [sys.executable, "-m", "vasevqa.cli", "plan", str(recipe), "--volume", str(tmp_path / "v"), *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert says.format(path=path) in line
    assert len(line) < 700


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "a: &a {b: *a}",
        *(
            f"a: !!{tag} {value}"
            for tag in ("bool", "timestamp", "int", "float", "null", "binary", "set", "python/name:os.system")
            for value in ("foo", "''", "é", "0x", "1:", "2024-13-45", "1e999", "-")
        ),
        "a: 0x_",
        "a: 2024-13-45",
        "? [a, b]\n: 1",
        "? {a: b}\n: 1",
    ],
)
def test_any_value_is_read_or_refused_with_the_name_of_the_file(text: str) -> None:
    try:
        assert isinstance(parse(text, Lines("questions.yaml"), aliases=True), dict)
    except ConfigError as error:
        assert str(error).startswith("questions.yaml")
