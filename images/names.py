"""Find the names of the images, their shared layers, and the version of their sources in the working tree."""

from __future__ import annotations

import hashlib
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = ("base", "torch", "swift")
LAUNCHER = "launcher"
MEGATRON = "to-megatron"  # its extras need a base image with CUDA
MADE_OF = ("vasevqa", "jobs", "locks/*.txt", "images/*/Dockerfile", "images/install.sh", ".dockerignore")
TRAINING_LOCK = "locks/training.txt"


def image_names() -> list[str]:
    """Return the names of the images: every folder in images/ with a Dockerfile, except the shared layers."""
    found = sorted(path.parent.name for path in (ROOT / "images").glob("*/Dockerfile"))
    return [name for name in found if name not in SHARED]


def shared_layer(name: str) -> str:
    """Return the shared layer that an image is built on, according to the image's Dockerfile."""
    text = (ROOT / "images" / name / "Dockerfile").read_text(encoding="utf-8")
    match = re.search(r"^ARG SHARED=vasevqa/([a-z]+):", text, re.MULTILINE)
    assert match is not None, name
    return match[1]


def stack(name: str) -> list[str]:
    """Return the shared layers below an image, lowest first."""
    layers: list[str] = []
    while name != "base":
        name = shared_layer(name)
        layers.insert(0, name)
    return layers


def version() -> str:
    """Return the version of the package."""
    match = re.search(
        r'^__version__ = "([^"]+)"', (ROOT / "vasevqa/__init__.py").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert match is not None
    return match[1]


def _git(*words: str) -> str | None:
    try:
        result = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout


def _digest(names: list[str]) -> str:
    """Return a digest of the files' names and contents. For a deleted file, the digest covers only the name."""
    digest = hashlib.sha256()
    for name in sorted(names):
        path = ROOT / name
        digest.update(name.encode() + b"\0")
        if path.is_file():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:8]


@dataclass(frozen=True)
class Source:
    """The version of the source code from which images are built.

    `version` is the package's version. `revision` is git's revision, with a suffix if some changes are not committed.
    Without git, `revision` is a digest of the files. `url` is the web address of the repository.
    """

    version: str
    revision: str
    url: str

    @property
    def tag(self) -> str:
        """The tag <version>-<12 digits of the revision>, with the suffix of the revision."""
        commit, dash, changed = self.revision.partition("-")
        return f"{self.version}-{commit[:12]}{dash}{changed}"


def source() -> Source:
    """Return the version, the revision and the web address of the working tree.

    Some files don't go into any image, such as the README. Uncommitted changes in these files don't change the
    revision.
    """
    commit = (_git("rev-parse", "HEAD") or "").strip()
    if commit:
        lines = (
            _git("status", "--porcelain", "--untracked-files=all", "--no-renames", "-z", "--", *MADE_OF) or ""
        ).split("\0")
        changed = [line[3:] for line in lines if line]
        revision = f"{commit}-dirty.{_digest(changed)}" if changed else commit
    else:  # an archive without git's data
        found = [path for part in MADE_OF for start in ROOT.glob(part) for path in (start, *start.rglob("*"))]
        names = [str(path.relative_to(ROOT)) for path in found if path.is_file() and "__pycache__" not in path.parts]
        revision = f"src.{_digest(names)}"
    return Source(version(), revision, _url((_git("config", "--get", "remote.origin.url") or "").strip()))


def _url(remote: str) -> str:
    """Return the web address of a git remote, without user name and password, or 'unknown' if the remote has none."""
    if match := re.fullmatch(r"(?:https?|ssh|git)://(?:[^@/]*@)?([^/:]+\.[^/:]+)(?::\d+)?/(.+?)(?:\.git)?/?", remote):
        return f"https://{match[1]}/{match[2]}"
    if match := re.fullmatch(r"[^@/]+@([^/:]+):(.+?)(?:\.git)?/?", remote):
        return f"https://{match[1]}/{match[2]}"
    return "unknown"
