"""What the images are called and made of, read from the working tree: stages, shared layers, version, revision, tag."""

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
    """The stages' images and the launcher's: every folder here with a Dockerfile, but for the shared layers."""
    found = sorted(path.parent.name for path in (ROOT / "images").glob("*/Dockerfile"))
    return [name for name in found if name not in SHARED]


def shared_layer(name: str) -> str:
    """The shared layer that an image is built on, as its Dockerfile says."""
    text = (ROOT / "images" / name / "Dockerfile").read_text(encoding="utf-8")
    match = re.search(r"^ARG SHARED=vasevqa/([a-z]+):", text, re.MULTILINE)
    assert match is not None, name
    return match[1]


def stack(name: str) -> list[str]:
    """The shared layers below an image, lowest first."""
    layers: list[str] = []
    while name != "base":
        name = shared_layer(name)
        layers.insert(0, name)
    return layers


def version() -> str:
    """The package's version."""
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
    """A digest of the files' names and contents; a file that is gone counts by its name."""
    digest = hashlib.sha256()
    for name in sorted(names):
        path = ROOT / name
        digest.update(name.encode() + b"\0")
        if path.is_file():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:8]


@dataclass(frozen=True)
class Source:
    """Where the images' content comes from. `revision` is git's, with a suffix for what isn't committed."""

    version: str
    revision: str
    url: str

    @property
    def tag(self) -> str:
        """<version>-<12 digits of the revision>, and the suffix."""
        commit, dash, changed = self.revision.partition("-")
        return f"{self.version}-{commit[:12]}{dash}{changed}"


def source() -> Source:
    """The working tree as it is. Only what images are made of counts: an edit of the README makes no new tag."""
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
    """A remote as a web address without anybody's name or password; unknown for a folder."""
    if match := re.fullmatch(r"(?:https?|ssh|git)://(?:[^@/]*@)?([^/:]+\.[^/:]+)(?::\d+)?/(.+?)(?:\.git)?/?", remote):
        return f"https://{match[1]}/{match[2]}"
    if match := re.fullmatch(r"[^@/]+@([^/:]+):(.+?)(?:\.git)?/?", remote):
        return f"https://{match[1]}/{match[2]}"
    return "unknown"
