"""Shared by all tests: no network, few threads, and an empty volume."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.browser import chromium  # noqa: F401 - a fixture

# A test run in the background inherits an ignored SIGINT. Without this line, the processes that tests interrupt would
# ignore SIGINT too.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads on busy cores are ten times slower
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture
def volume_root(tmp_path: Path) -> Path:
    """An empty volume."""
    root = tmp_path / "volume"
    root.mkdir()
    return root


def _allowed_skips() -> list[re.Pattern[str]]:
    lines = (Path(__file__).parent.parent / ".ci/allowed-skips.txt").read_text(encoding="utf-8").splitlines()
    return [re.compile(line) for line in lines if line.strip() and not line.startswith("#")]


_unexpected_skips: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In CI, a skipped test is a failure unless the list allows its reason."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(pattern.search(reason) for pattern in _allowed_skips()):
            _unexpected_skips.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the test run if a skip is not allowed."""
    if _unexpected_skips:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the skips that are not allowed."""
    for line in _unexpected_skips:
        terminalreporter.write_line(f"skipped without permission (.ci/allowed-skips.txt): {line}", red=True)


@pytest.fixture(scope="session")
def hf_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random CLIP as a Hugging Face folder."""
    from tests import clips

    return clips.hugging_face(tmp_path_factory.mktemp("hf-clip"))


@pytest.fixture(scope="session")
def tiny_clip(hf_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights as an open_clip folder."""
    from tests import clips

    return clips.open_clip(tmp_path_factory.mktemp("open-clip"), hf_clip)
