"""Whatever call of the storage fails: nothing torn, one clear sentence, and the same command ends the work.

`make faults` runs many more of these drills.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.faulting.drill import ERRNOS, Drills, Fault, compiled, failing
from tests.pipeline.kit import ROOT

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="LD_PRELOAD needs gcc, which isn't here")

STAGE = {"open": 30, "read": 30, "write": 8, "fsync": 4, "rename": 8, "mkdir": 5, "stat": 30}  # calls of a healthy run
LAUNCHED = {"open": 10, "read": 10, "write": 6, "rename": 3, "mkdir": 3, "flock": 2, "stat": 20, "link": 1}


def _drawn() -> list[Fault]:
    draw = random.Random(20)
    chosen = []
    for _ in range(45):
        call = draw.choice(list(STAGE))
        nth, lasting = draw.randint(1, STAGE[call]), draw.random() < 0.3
        chosen.append(Fault("stage", call, draw.choice(ERRNOS), nth, lasting))
    for _ in range(12):
        call = draw.choice(list(LAUNCHED))
        chosen.append(Fault("launcher", call, draw.choice(ERRNOS), draw.randint(1, LAUNCHED[call])))
    chosen += [Fault("step", "write", errno.EIO, 2), Fault("step", "open", errno.ESTALE, 3)]
    chosen.append(Fault("supervisor", "open", errno.EIO, 2))
    return list(dict.fromkeys(chosen))


@pytest.fixture(scope="module")
def drills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drills]:
    root = tmp_path_factory.mktemp("faults")
    made = Drills(root, compiled(root))
    yield made
    made.close()


@pytest.mark.parametrize("fault", _drawn(), ids=str)
def test_no_failed_call_becomes_a_torn_result_or_a_riddle(drills: Drills, fault: Fault) -> None:
    ended = drills.run(fault)
    assert ended.reached, "no such call; draw it from fewer"
    assert not ended.problems, "\n".join(ended.problems)
    if fault.lasting and ended.code:
        assert errno.errorcode[fault.number] in ended.said or ended.code == 74


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("nth", [1, 3])
def test_a_photograph_is_not_set_aside_when_a_read_fails(drills: Drills, tmp_path: Path, suffix: str, nth: int) -> None:
    """libtiff reads a compressed TIFF by itself and hides the error of the storage."""
    noise = np.random.default_rng(1).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    path, mark = tmp_path / f"vase.{suffix}", tmp_path / "mark"
    Image.fromarray(noise).save(path, **({"compression": "tiff_lzw"} if suffix == "tif" else {}))
    program = (
        "import sys; from pathlib import Path; from vasevqa.curation.images import open_image;"
        " print(open_image(Path(sys.argv[1])).size)"
    )
    for lasting, said in ((False, "(300, 300)"), (True, "TransientStorageError: Could not read")):
        mark.unlink(missing_ok=True)
        ended = subprocess.run(
            [sys.executable, "-c", program, path],
            cwd=ROOT,
            env={
                **os.environ,
                "LD_PRELOAD": str(drills.library),
                **failing(Fault("stage", "read", errno.EIO, nth, lasting), path, mark),
            },
            capture_output=True,
            text=True,
        )
        assert mark.exists()
        assert said in ended.stdout + ended.stderr, ended.stderr
