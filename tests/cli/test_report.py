"""`vasevqa report --open` shows the report in the browser of this machine, or says where the report is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.kit import CURATED, RUN, curated

SHOWS = '#!/bin/sh\necho "$1" > "$SEEN"\n'
FAILS = "#!/bin/sh\nexit 1\n"


def report(volume_root: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vasevqa.cli", "report", RUN, "--volume", str(volume_root), *words]
    plain = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**plain, **environment})


def finished(volume_root: Path) -> Path:
    """Make a finished run, and return the path of its report."""
    run = curated(volume_root, CURATED)
    (run / "recipe.yaml").write_text("name: demo\n")
    return run / "report.html"


def browser(path: Path, script: str) -> str:
    path.write_text(script)
    path.chmod(0o755)
    return str(path)


def test_the_report_opens_in_the_browser_of_the_machine(volume_root: Path, tmp_path: Path) -> None:
    page = finished(volume_root)
    seen = tmp_path / "seen"
    shows = browser(tmp_path / "browser", SHOWS)
    assert report(volume_root, BROWSER=shows, SEEN=str(seen)).stdout == f"Report: {page}\n"
    assert not seen.exists()  # it was not asked for
    told = report(volume_root, "--open", BROWSER=shows, SEEN=str(seen))
    assert (told.returncode, told.stdout, told.stderr) == (0, f"Report: {page}\n", "")
    assert seen.read_text() == f"{page.as_uri()}\n"
    assert page.exists()


@pytest.mark.parametrize("installed", [True, False])
def test_without_a_working_browser_the_path_is_said(volume_root: Path, tmp_path: Path, installed: bool) -> None:
    page = finished(volume_root)
    name = browser(tmp_path / "browser", FAILS) if installed else str(tmp_path / "none")
    told = report(volume_root, "--open", BROWSER=name, PATH=str(tmp_path / "empty"))
    assert told.returncode == 0
    assert told.stdout == f"Report: {page}\n"
    assert f"No browser could be started on this machine; copy {page}" in told.stderr
