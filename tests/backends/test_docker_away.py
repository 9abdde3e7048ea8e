"""An engine that stops answering. The tests close and open a proxy, because they can't restart the real engine."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.docker_kit import DockerKit, small_task
from tests.pipeline.kit import FIRST, Background, of, wait_for
from vasevqa.backends.base import State
from vasevqa.errors import ClusterUnreachable
from vasevqa.pipeline import launcher as launching


class Gate:
    """A proxy of the engine. A closed proxy refuses new connections and breaks existing connections."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "docker.sock"
        self._within: set[socket.socket] = set()
        self.open()

    def open(self) -> None:
        gate = self

        class Visit(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.socket(socket.AF_UNIX) as engine:
                    engine.connect(os.environ["ENGINE"])
                    gate._within |= {self.request, engine}
                    back = threading.Thread(target=pump, args=[engine, self.request], daemon=True)
                    back.start()
                    pump(self.request, engine)
                    back.join()
                    gate._within -= {self.request, engine}

        self._server = socketserver.ThreadingUnixStreamServer(str(self.path), Visit)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True).start()

    def close(self) -> None:
        self.path.unlink()
        self._server.shutdown()
        for end in list(self._within):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._server.server_close()


def pump(source: socket.socket, target: socket.socket) -> None:
    """Pass on all data until the connection ends."""
    with contextlib.suppress(OSError):
        while block := source.recv(1 << 16):
            target.sendall(block)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def gate(engine: Any) -> Iterator[Gate]:
    """The proxy that DOCKER_HOST names during the test."""
    # Not under tmp_path: the path of a socket must be short.
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENGINE", os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))
        made = Gate(Path(folder))
        patch.setenv("DOCKER_HOST", f"unix://{made.path}")
        yield made
        made.close()


def test_an_unreachable_engine_is_asked_again(kit: DockerKit, gate: Gate) -> None:
    kit.volume.root.mkdir(exist_ok=True)
    backend, task = kit.backend, small_task(kit)
    gate.close()
    for ask in (lambda: backend.submit(task), lambda: backend.state(task.name), lambda: backend.cancel(task.name, 0)):
        with pytest.raises(ClusterUnreachable, match="doesn't answer"):
            ask()
    assert backend.watch([task.name], 0.1) == []
    gate.open()
    assert backend.state(task.name) is State.GONE
    assert [update.state for update in backend.watch([task.name], 10)][-1:] == [State.GONE]


@pytest.mark.parametrize("long", [False, True])
def test_an_engine_that_stops_answering_does_not_end_the_run(
    kit: DockerKit, gate: Gate, monkeypatch: pytest.MonkeyPatch, long: bool
) -> None:
    """The engine doesn't answer before the step starts, and again while the step runs, for a short or a long time."""
    monkeypatch.setattr(launching, "AWAY_SECONDS", 0.1)
    held = kit.hold("first")
    launcher = kit.launcher(selection=FIRST)
    gate.close()
    going = Background(launcher)
    wait_for(lambda: of(kit, "step-waiting"), "the launcher to report why it waits")
    assert "doesn't answer" in of(kit, "step-waiting")[0]["message"]
    gate.open()
    kit.wait_until_held("first")
    wait_for(lambda: of(kit, "stage-started"), "the first event of the stage")
    gate.close()
    if long:
        wait_for(lambda: len(of(kit, "step-waiting")) > 1, "the launcher to report this again")
        held.unlink()
    gate.open()
    held.unlink(missing_ok=True)
    assert going.join() is None
    assert kit.attempts("begins") == {"first": 1}
    assert of(kit, "attempt-failed") == []
    lines = launcher.run.log("first", 1).read_text().splitlines()
    assert [event for event in (json.loads(line)["event"] for line in lines) if event != "progress"] == [
        "started",
        "phase",
        "summary",
        "sealed",
    ]
    kit.assert_tidy()
