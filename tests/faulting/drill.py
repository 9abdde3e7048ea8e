"""One drill: a command whose storage fails once, what it said and left, and the same command on a healthy storage."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.pipeline.kit import ROOT, Kit
from tests.stages.test_build_dataset import attributes, name, picture
from vasevqa import files
from vasevqa.artifacts.contents import verify
from vasevqa.artifacts.volume import Volume
from vasevqa.errors import STORAGE_ERRNOS, TRANSIENT_ERRNOS

CALLS = ("open", "read", "write", "fsync", "rename", "link", "mkdir", "flock", "stat", "symlink")
ERRNOS = (*TRANSIENT_ERRNOS, errno.ENOMEM, *(number for number in STORAGE_ERRNOS if number != errno.EPERM))
# Where the call fails: the text is in the command line of the process.
PLACES = {
    "stage": "tests.faulting.served",  # build-dataset on its own
    "launcher": "tests.faulting.served",
    "supervisor": "supervisor.py",
    "step": "tests.pipeline.stages.copying",  # a stage that a launcher started
}
VASES = 6
_SENTENCE = re.compile(r"^(?:error: )?[^\n]+\.$")


def compiled(folder: Path) -> Path:
    """The preloaded library, which gcc builds in `folder`."""
    library = folder / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


@dataclass(frozen=True)
class Fault:
    """The `nth` call below the drill's folder that fails. With `lasting`, all later calls fail too."""

    place: str
    call: str
    number: int
    nth: int = 1
    lasting: bool = False

    def __str__(self) -> str:
        return f"{self.place}-{self.call}-{errno.errorcode[self.number]}-{self.nth}{'-on' if self.lasting else ''}"


@dataclass(frozen=True)
class Ended:
    """How a drill went. `problems` is empty if everything was as it must be."""

    reached: bool
    code: int
    said: str
    problems: tuple[str, ...] = ()


class Drills:
    """A process that runs drills, one after the other, in folders below `root`."""

    def __init__(self, root: Path, library: Path) -> None:
        self._root, self._number, self.library = root, 0, library
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faulting.served"],
            cwd=ROOT,
            env={**os.environ, "LD_PRELOAD": str(library)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._healthy: dict[str, Any] = {}

    def close(self) -> None:
        """End the process."""
        self._server.communicate()

    def run(self, fault: Fault) -> Ended:
        """Run the command with the fault, look at what it left, and run it again without the fault."""
        kind = "stage" if fault.place == "stage" else "run"
        if kind not in self._healthy:
            place = self._folder(kind)
            assert self._command(place, kind, {})[0] == 0
            self._healthy[kind] = _left(place, kind)
        place, mark = self._folder(kind), self._root / f"{self._number}.mark"
        code, said = self._command(place, kind, _environment(fault, place, mark))
        problems = [*_unclear(code, said, fault), *_torn(place, kind)] if mark.exists() else []
        again, told = self._command(place, kind, {})
        if again != 0:
            problems.append(f"the healthy run ended with {again}: {told[-300:]}")
        elif _left(place, kind) != self._healthy[kind]:
            problems.append("the healthy run left another result")
        shutil.rmtree(place, ignore_errors=True)
        return Ended(mark.exists(), code, said, tuple(problems))

    def _folder(self, kind: str) -> Path:
        self._number += 1
        place = self._root / str(self._number)
        if kind == "run":
            Kit(place)
            return place
        (place / "views").mkdir(parents=True)
        for number in range(VASES):
            picture(number, 32).save(place / "views" / name(number))
        (place / "vases.json").write_text(json.dumps([attributes(number) for number in range(VASES)]))
        return place

    def _command(self, place: Path, kind: str, env: Mapping[str, str]) -> tuple[int, str]:
        words = {
            "run": ["vasevqa", "run", f"{place}/words.yaml", "--to", "first"],
            "stage": [
                *("build-dataset", "--images-dir", f"{place}/views", "--annotations", f"{place}/vases.json"),
                *("--output-dir", f"{place}/out"),
            ],
        }[kind]
        said = self._root / "said"
        command = {"argv": words, "env": {"VASEVQA_VOLUME": f"{place}/volume", **env}, "said": str(said)}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(command) + "\n")
        self._server.stdin.flush()
        code = json.loads(self._server.stdout.readline())
        return code, said.read_text(errors="replace")


def _environment(fault: Fault, place: Path, mark: Path) -> dict[str, str]:
    return {**failing(fault, place, mark), "VASE_FAIL_PROGRAM": PLACES[fault.place]}


def failing(fault: Fault, under: Path, mark: Path) -> dict[str, str]:
    """The variables that let a call below `under` fail. The library creates the file `mark` when it fails."""
    return {
        "VASE_FAIL_CALL": fault.call,
        "VASE_FAIL_ERRNO": str(fault.number),
        "VASE_FAIL_NTH": str(fault.nth),
        "VASE_FAIL_UNDER": str(under),
        "VASE_FAIL_MARK": str(mark),
        "VASE_FAIL_LASTING": str(int(fault.lasting)),
    }


def _unclear(code: int, said: str, fault: Fault) -> list[str]:
    """What is wrong with the exit code and the sentence of a command whose storage failed."""
    allowed = (0, 75, 74) if fault.number in STORAGE_ERRNOS else (0, 71) if fault.number == errno.ENOMEM else (0, 75)
    problems = [] if code in allowed else [f"exit code {code}: {said[-300:]}"]
    if "Traceback" in said or "is a bug" in said or "bug in" in said:
        problems.append(f"a riddle: {said[-600:]}")
    last = [line for line in said.splitlines() if "error: " in line][-1:]
    if code and not (last and _SENTENCE.match(last[0])):
        problems.append(f"no sentence: {said[-300:]}")
    return problems


def _torn(place: Path, kind: str) -> list[str]:
    """What is torn: an artifact that doesn't hold what its record says, or a file that isn't whole."""
    problems = []
    if kind == "run":
        for artifact in Volume(place / "volume").complete("first"):
            try:
                verify(artifact.path)
            except Exception as error:
                problems.append(f"torn: {error}")
    for path in (place / "out").rglob("*.json"):
        try:
            json.loads(path.read_text())
        except ValueError as error:
            problems.append(f"torn: {path.name}: {error}")
    return problems


def _left(place: Path, kind: str) -> dict[str, Any]:
    """The result: names and digests of files."""
    if kind == "run":
        return {artifact.key: verify(artifact.path)["files"] for artifact in Volume(place / "volume").complete("first")}
    out = place / "out"
    return {
        path.relative_to(out).as_posix(): files.digest_file(path)
        for path in sorted(out.rglob("*"))
        if path.is_file() and not (path.name.startswith(".") and path.name.endswith(".tmp"))
    }
