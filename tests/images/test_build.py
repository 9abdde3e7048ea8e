"""The build of the images: names and tags, errors in one sentence, the table of sizes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from images import build, names, sizes
from images import engine as engines
from scripts.generated import stages
from tests.images import kit


def call(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m images.build WORDS`. A failure must be one sentence."""
    result = subprocess.run(
        ["python3", "-m", "images.build", *words],
        cwd=names.ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result


def test_every_stage_has_an_image_and_each_image_is_in_the_bake_file() -> None:
    assert set(names.image_names()) == {*stages(), names.LAUNCHER}
    bake = (names.ROOT / "docker-bake.hcl").read_text()
    assert all(f'"{name}"' in bake for name in names.image_names())


@pytest.mark.parametrize("name", [*names.image_names(), *names.SHARED])
def test_no_dockerfile_needs_a_frontend_from_a_registry(name: str) -> None:
    text = (names.ROOT / f"images/{name}/Dockerfile").read_text()
    assert "# syntax=" not in text
    assert "<<" not in text


def test_the_dockerfiles_of_stages_differ_only_in_command_and_layer() -> None:
    def alike(name: str) -> str:
        text = (names.ROOT / f"images/{name}/Dockerfile").read_text().partition("\n")[2]
        text = re.sub(r"^ARG SHARED=vasevqa/(base|torch|swift):", "ARG SHARED=vasevqa/LAYER:", text, flags=re.MULTILINE)
        command = '"vasevqa"]' if name == names.LAUNCHER else f'"python", "-m", "jobs.{name.replace("-", "_")}"]'
        assert f'ENTRYPOINT ["tini", "--", {command}' in text
        return text.replace(command, "COMMAND").replace(f'"vasevqa {name}"', "TITLE")

    assert len({alike(name) for name in kit.NAMES}) == 1


def repository(folder: Path) -> Path:
    (folder / "vasevqa").mkdir()
    (folder / "vasevqa/__init__.py").write_text('__version__ = "1.2.3"\n')
    (folder / "README.md").write_text("read me")
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "first"],
    ):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def test_a_tag_contains_the_revision_and_marks_uncommitted_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "ROOT", repository(tmp_path))
    clean = names.source()
    assert re.fullmatch(r"[0-9a-f]{40}", clean.revision)
    assert clean.tag == f"1.2.3-{clean.revision[:12]}"
    (tmp_path / "README.md").write_text("images aren't made of this")
    assert names.source() == clean
    (tmp_path / "vasevqa/new.py").write_text("one = 1")
    first = names.source().tag
    assert re.fullmatch(rf"{re.escape(clean.tag)}-dirty\.[0-9a-f]{{8}}", first)
    (tmp_path / "vasevqa/new.py").write_text("one = 2")
    assert names.source().tag not in (first, clean.tag)
    (tmp_path / "vasevqa/new.py").unlink()
    assert names.source() == clean


def test_without_git_the_tag_depends_on_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vasevqa").mkdir()
    (tmp_path / "vasevqa/__init__.py").write_text('__version__ = "1.2.3"\n')
    monkeypatch.setattr(names, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    first = names.source().tag
    assert re.fullmatch(r"1\.2\.3-src\.[0-9a-f]{8}", first)
    (tmp_path / "vasevqa/more.py").write_text("more")
    assert names.source().tag != first


@pytest.mark.parametrize(
    ("remote", "url"),
    [
        ("https://name:secret@git.example.org/a/b.git", "https://git.example.org/a/b"),
        ("ssh://git@git.example.org:2222/a/b.git", "https://git.example.org/a/b"),
        ("git@git.example.org:a/b.git", "https://git.example.org/a/b"),
        ("/somewhere/on/this/machine", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_source_label_contains_no_password_and_no_folder(remote: str, url: str) -> None:
    assert names._url(remote) == url


def test_digests_of_other_images_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "images.yaml"
    build.write_digests(
        path, {"sft": "r.example.org/vasevqa/sft@sha256:1", "merge": "r.example.org/vasevqa/merge@sha256:2"}
    )
    build.write_digests(path, {"sft": "r.example.org/vasevqa/sft@sha256:3"})
    assert path.read_text().splitlines()[1:] == [
        "images:",
        "  merge: r.example.org/vasevqa/merge@sha256:2",
        "  sft: r.example.org/vasevqa/sft@sha256:3",
    ]


def test_another_training_lock_is_built_on_the_base_and_named_in_the_tag() -> None:
    order, _ = build.parse(
        [
            "--stage",
            "sft",
            "--stage",
            "clip-filter",
            "--training-lock",
            "locks/gpu.txt",
            "--registry",
            "r.example.org/me/",
        ]
    )
    assert order.below("sft") == ["base", "swift"]
    assert order.below("clip-filter") == ["base", "torch"]
    assert order.tag.endswith("-gpu")
    assert order.references("sft")[1] == f"r.example.org/me/vasevqa/sft:{order.source.version}"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--stage", "lancher"], "choose from"),
        (["--push"], "--push needs --registry"),
        (["--training-lock", "nowhere.txt"], "is not a file in locks/"),
    ],
)
def test_a_wrong_flag_is_reported(words: list[str], sentence: str) -> None:
    result = call(*words)
    assert result.returncode == 2
    assert sentence in result.stderr


def fake_docker(folder: Path, script: str) -> str:
    path = folder / "docker"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("echo 'Cannot connect to the Docker daemon at x' >&2; exit 1", "No docker engine answers at"),
        ("echo 'Got permission denied while trying to connect' >&2; exit 1", "join the group `docker`"),
        (
            '[ "$1" = version ] && echo 28.2.2 && exit; echo buildx component is missing; exit 1',
            "install docker's buildx component",
        ),
    ],
)
def test_an_unusable_docker_is_reported_with_a_remedy(
    script: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_binaries", lambda: [fake_docker(tmp_path, script)])
    with pytest.raises(engines.EngineError, match=re.escape(sentence)):
        engines.Engine()


def test_a_missing_docker_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_binaries", list)
    with pytest.raises(engines.EngineError, match="There is no docker command"):
        engines.Engine()


def test_buildx_is_used_if_the_engine_is_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version, bakes in (("27.1.0", True), ("20.10.24+dfsg1", False)):
        script = f'case "$1" in version) echo {version};; build) echo --progress;; buildx) echo v0.20;; esac'
        monkeypatch.setattr(engines, "_binaries", lambda script=script: [fake_docker(tmp_path, script)])
        assert engines.Engine().bakes is bakes


def test_a_missing_engine_and_a_missing_base_image_are_reported() -> None:
    kit.engine()
    result = call("--stage", "launcher", DOCKER_HOST="unix:///nowhere.sock")
    assert result.returncode == 2
    assert (
        result.stderr
        == "error: No docker engine answers at unix:///nowhere.sock; start it (or set DOCKER_HOST), then try again.\n"
    )
    result = call("--stage", "launcher", "--base-image", "nowhere.invalid/python:1")
    assert result.returncode == 1
    assert result.stderr.startswith("error: The base image nowhere.invalid/python:1 can't be pulled (")
    assert len(result.stderr.splitlines()) == 1


def test_a_missing_registry_is_reported(tmp_path: Path) -> None:
    docker = kit.engine()
    result = call(
        "--stage", "launcher", "--push", "--registry", "127.0.0.1:9/x", "--digests", str(tmp_path / "images.yaml")
    )
    for tag in build.parse(["--registry", "127.0.0.1:9/x"])[0].references("launcher"):
        subprocess.run([docker.binary, "image", "rm", tag], capture_output=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: The registry 127.0.0.1:9 refuses the image (")
    assert not (tmp_path / "images.yaml").exists()


def test_the_table_counts_shared_layers_once(tmp_path: Path) -> None:
    images = [
        sizes.Measured("base", 200_000_000, ("a",)),
        sizes.Measured("torch", 6_200_000_000, ("a", "b")),
        sizes.Measured("classify", 6_202_000_000, ("a", "b", "code")),
        sizes.Measured("clip-filter", 6_202_000_000, ("a", "b", "code")),
        sizes.Measured("launcher", 202_000_000, ("a", "code")),
    ]
    text = sizes.table(images)
    assert "| `clip-filter` | 6,202 MB | torch | 2.0 MB |" in text
    assert "| `launcher` | 202 MB | base | 2.0 MB |" in text
    assert "| all on one machine | 6,204 MB | | |" in text
    page = tmp_path / "README.md"
    page.write_text(f"before\n{sizes.BEGIN}\nold\n{sizes.END}\nafter\n")
    sizes.write(text, page)
    assert page.read_text() == f"before\n{sizes.BEGIN}\n{text}\n{sizes.END}\nafter\n"
