"""`make faults`: make system calls of stages and launchers fail, and write a table of the outcomes to faults.md.

In each drill, a command runs while its n-th system call of one kind (such as open) fails with an errno (such as EIO).
In some drills of a stage without a launcher, all later calls fail too. To run only some of the drills, give
`--places stage,launcher` or `--errnos EIO,ENOSPC`. The table of these drills is printed, but not written to faults.md.
"""

from __future__ import annotations

import argparse
import errno
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faulting.drill import CALLS, ERRNOS, PLACES, Drills, Ended, Fault, compiled

TABLE = Path(__file__).with_name("faults.md")
NTHS = {"stage": (1, 2, 4, 9, 20), "launcher": (1, 6), "supervisor": (1,), "step": (1, 4)}
FAILED_LAUNCHES = (errno.EIO, errno.ENOSPC)  # a run takes seconds


@dataclass
class Tally:
    """The numbers of outcomes, for all drills in which the same kind of call fails in the same place."""

    tried: int = 0
    absorbed: int = 0
    clear: int = 0
    intact: int = 0

    def add(self, ended: Ended) -> None:
        """Add the outcome of one drill."""
        self.tried += 1
        self.absorbed += ended.code == 0
        self.intact += not any(text.startswith(("torn", "the healthy run")) for text in ended.problems)
        self.clear += not any(text.startswith(("exit code", "a riddle", "no sentence")) for text in ended.problems)


def faults(places: list[str], numbers: list[int]) -> Iterator[list[Fault]]:
    """Yield lists of faults. The faults of a list differ only in n, the number of the failing call; n increases."""
    for place in places:
        for call in CALLS:
            for number in numbers:
                if place == "stage" or number in FAILED_LAUNCHES:
                    yield [Fault(place, call, number, nth) for nth in NTHS[place]]
                    if place == "stage":
                        yield [Fault(place, call, number, nth, lasting=True) for nth in (1, 6)]


def main() -> None:
    """Run the drills, print the table, and write it to faults.md if no drill was left out."""
    given = argparse.ArgumentParser()
    given.add_argument("--places", default=",".join(PLACES))
    given.add_argument("--errnos", default=",".join(errno.errorcode[number] for number in ERRNOS))
    asked = given.parse_args()
    numbers = [getattr(errno, name) for name in asked.errnos.split(",")]
    root, began = Path(tempfile.mkdtemp(prefix="vasevqa-faults-")), time.monotonic()
    drills = Drills(root, compiled(root))
    tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)
    wrong = []
    for cell in faults(asked.places.split(","), numbers):
        for fault in cell:
            ended = drills.run(fault)
            if ended.reached:
                tallies[fault.call, fault.place].add(ended)
            if ended.problems:
                wrong.append(f"{fault}: {'; '.join(ended.problems)}")
                print(wrong[-1], file=sys.stderr, flush=True)
            if not ended.reached:
                break
    drills.close()
    shutil.rmtree(root, ignore_errors=True)
    text = table(tallies, wrong, time.monotonic() - began)
    print(text)
    if asked.places == given.get_default("places") and asked.errnos == given.get_default("errnos"):
        TABLE.write_text(text, encoding="utf-8")
    sys.exit(bool(wrong))


def table(tallies: dict[tuple[str, str], Tally], wrong: list[str], seconds: float) -> str:
    """Return the outcomes as a Markdown table, followed by a list of the drills that went wrong."""
    lines = [
        "# A storage that fails",
        "",
        "`make faults` lets one system call below the folder of a run fail, and runs the same command again on a",
        "healthy storage. *absorbed*: the command ended with 0 all the same. *clear*: otherwise it ended with 75",
        "(74 for a full, read-only or forbidden storage, 71 without memory) and one sentence. *intact*: no artifact",
        "was torn, and the second command ended with 0 and with the result of an undisturbed run.",
        "",
        f"errnos: {', '.join(errno.errorcode[number] for number in ERRNOS)} (launcher, supervisor, step:"
        f" {', '.join(errno.errorcode[number] for number in FAILED_LAUNCHES)}).",
        "",
        "| call | where | tried | absorbed | clear | intact |",
        "|---|---|---|---|---|---|",
    ]
    for (call, place), tally in tallies.items():
        lines.append(f"| {call} | {place} | {tally.tried} | {tally.absorbed} | {tally.clear} | {tally.intact} |")
    total = [sum(getattr(t, name) for t in tallies.values()) for name in ("tried", "absorbed", "clear", "intact")]
    lines += [f"| all | | {' | '.join(map(str, total))} |", "", f"{total[0]} drills in {seconds:.0f} s."]
    lines += ["", *(f"- {text}" for text in wrong)] if wrong else []
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
