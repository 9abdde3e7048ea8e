"""Find the docker command, check that it can build images, and explain its failures in one sentence."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class EngineError(Exception):
    """Docker can't be used. The message says what to do.

    Docker may be missing, may not answer, or may be unable to build. Or the user may have no permission to use it.
    """


class BuildError(Exception):
    """An image couldn't be built or pushed. The message names the reason or the log file."""


def _binaries() -> list[str]:
    folders = [*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/bin"]
    found = [
        str(Path(folder) / "docker") for folder in folders if folder and os.access(Path(folder) / "docker", os.X_OK)
    ]
    return list(dict.fromkeys(found))


def _call(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, capture_output=True, text=True, check=False, env={**os.environ, "DOCKER_BUILDKIT": "1"}
    )


def _explain(words: str) -> EngineError:
    if "permission denied" in words.lower():
        return EngineError(
            "You may not use the socket of the docker engine; join the group `docker` and log in again, or use sudo."
        )
    where = os.environ.get("DOCKER_HOST") or "/var/run/docker.sock"
    return EngineError(f"No docker engine answers at {where}; start it (or set DOCKER_HOST), then try again.")


class Engine:
    """A docker command that builds with BuildKit."""

    def __init__(self) -> None:
        """Find the docker command. Raise EngineError if there is none, or if it can't be used."""
        binaries = _binaries()
        if not binaries:
            raise EngineError("There is no docker command on PATH; install Docker (20.10 or newer).")
        answers = {binary: _call(binary, "version", "--format", "{{.Server.Version}}") for binary in binaries}
        alive = {
            binary: answer.stdout.strip()
            for binary, answer in answers.items()
            if answer.returncode == 0 and answer.stdout.strip()
        }
        if not alive:
            raise _explain(" ".join(answer.stderr for answer in answers.values()))
        able = [binary for binary in alive if "--progress" in _call(binary, "build", "--help").stdout]
        if not able:
            raise EngineError(f"{', '.join(alive)} can't build with BuildKit; install docker's buildx component.")
        with_buildx = [binary for binary in able if _call(binary, "buildx", "version").returncode == 0]
        self.binary = (with_buildx or able)[0]
        # A bake file needs named build contexts to build one image on another. Engines support them since version 23.
        self.bakes = bool(with_buildx) and int(re.match(r"\d*", alive[self.binary])[0] or 0) >= 23  # type: ignore[index]

    def inspect(self, *images: str) -> list[dict[str, Any]]:
        """Return the engine's description of each image in `images`. Images that the engine lacks are skipped."""
        found: list[dict[str, Any]] = json.loads(_call(self.binary, "image", "inspect", *images).stdout or "[]")
        return found

    def run(
        self, words: Sequence[str], log: Path, say: Callable[[str], None], env: dict[str, str] | None = None
    ) -> None:
        """Run `docker WORDS`, and write its output to `log`.

        Call `say` for each build step that is not from the cache.

        Raise EngineError if docker fails because the engine can't be reached. Raise BuildError if docker fails for
        another reason.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "DOCKER_BUILDKIT": "1", **(env or {})}
        # From the repository's root: the build context is ".".
        root = Path(__file__).resolve().parent.parent
        process = subprocess.Popen(
            [self.binary, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd=root,
        )
        assert process.stdout is not None
        lines: list[str] = []
        steps: dict[str, str] = {}
        with log.open("w", encoding="utf-8") as stream:
            for line in process.stdout:
                stream.write(line)
                stream.flush()
                lines.append(line.rstrip())
                if match := re.match(r"#(\d+) (\[.*?\d+/\d+\] .*)", line):
                    steps[match[1]] = match[2][:110]
                elif (match := re.match(r"#(\d+) \d+\.\d+ ", line)) and match[
                    1
                ] in steps:  # a step that prints output is not from the cache
                    say(steps.pop(match[1]))
        if process.wait():
            raise _failure(lines, log)


def _failure(lines: Sequence[str], log: Path) -> Exception:
    text = "\n".join(lines)
    if "Cannot connect to the Docker daemon" in text or "permission denied while trying to connect" in text:
        return _explain(text)
    asked = re.search(r"load metadata for (\S+)", text)
    if (
        asked
        and re.search(
            rf"(?s)ERROR.*{re.escape(asked[1])}|failed (?:to solve|with frontend).*{re.escape(asked[1])}", text
        )
        and "executor failed" not in text
    ):
        reason = next((line for line in reversed(lines) if line.strip()), "")
        return BuildError(
            f"The base image {asked[1]} can't be pulled ({reason[-160:]}); pull or load it yourself, or name another"
            " image with BASE_IMAGE=... (--base-image)."
        )
    if "no space left on device" in text:
        return BuildError(
            "The disk of the docker engine is full; free some space: `docker system df` shows what uses it, and"
            " `docker image prune` removes unused images."
        )
    pushed = re.search(r"The push refers to repository \[([^/\]]+)/", text)
    if pushed:
        return BuildError(
            f"The registry {pushed[1]} refuses the image ({lines[-1][-160:]}); check its name, and log in with"
            f" `docker login {pushed[1]}`."
        )
    last = "\n".join(f"  {line}" for line in lines[-12:])
    return BuildError(f"docker failed; the whole log is in {log}. The last lines are:\n{last}")
