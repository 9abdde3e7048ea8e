"""`vasevqa upload` and `vasevqa download` with a user's rights, over connections that break."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import pytest
import yaml

from tests.e2e.inside import Site, inside_images, site, until  # noqa: F401 - fixtures


@dataclass
class Connection:
    """The state that both directions of a connection share."""

    carried: int = 0
    cut: bool = False


class Cutter:
    """A TCP proxy in front of the API server that cuts a connection after `limit` bytes, `times` times."""

    def __init__(self, server: str, limit: int, times: int) -> None:
        parts = urlparse(server)
        self.target, self.limit, self.left, self.cuts = (parts.hostname, parts.port or 443), limit, times, 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = self.listener.accept()
                theirs = socket.create_connection(self.target)
                connection = Connection()
                for source, sink in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._carry, args=(source, sink, connection), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, connection: Connection) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(65536):
                if self._cuts(connection, len(block)):
                    break
                sink.sendall(block)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _cuts(self, connection: Connection, count: int) -> bool:
        """Return whether to cut the connection before `count` more bytes. Both threads of a connection call this, and
        one cut is counted once.
        """
        with self.lock:
            connection.carried += count
            if not connection.cut and connection.carried > self.limit and self.left:
                connection.cut = True
                self.left -= 1
                self.cuts += 1
            return connection.cut


@contextlib.contextmanager
def cut(site: Site, limit: int, times: int) -> Iterator[tuple[Cutter, dict[str, str]]]:  # noqa: F811
    """An environment in which a Cutter is in front of the API server."""
    config = yaml.safe_load(site.kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    cutter = Cutter(cluster["server"], limit, times)
    host = urlparse(cluster["server"]).hostname
    cluster |= {"server": f"https://127.0.0.1:{cutter.port}", "tls-server-name": host}
    path = site.folder / "cut.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    try:
        yield cutter, {"KUBECONFIG": str(path)}
    finally:
        cutter.listener.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def drawn(folder: Path, count: int) -> dict[str, bytes]:
    """Write many small files and one large file, with difficult names."""
    source = random.Random(1)
    for number in range(count):
        path = folder / f"vase {number % 7}" / f"é-{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.randbytes(source.randrange(2000)))
    (folder / "empty").touch()
    (folder / "large.safetensors").write_bytes(source.randbytes(12 << 20))
    return contents(folder)


@pytest.mark.timeout(1500)  # thousands of files in both directions, with lost connections
def test_thousands_of_files_arrive_in_both_directions_despite_lost_connections(site: Site) -> None:  # noqa: F811
    site.be_a_user()
    wanted = drawn(site.folder / "photos", 3000)
    with cut(site, 4 << 20, 3) as (cutter, env):
        result = site.vasevqa("upload", site.folder / "photos", "inputs/photos", env=env)
        assert cutter.cuts == 3
    assert result.stderr.count("trying again") == 3
    assert f"{len(wanted)} files" in result.stdout
    assert contents(site.volume / "inputs/photos") == wanted
    assert (
        f"0 sent (0 bytes), {len(wanted)} were there"
        in site.vasevqa("upload", site.folder / "photos", "inputs/photos").stdout
    )
    (site.folder / "photos/vase 1/é-1.jpg").write_bytes(b"changed")
    assert (
        f"1 sent (7 bytes), {len(wanted) - 1} were there"
        in site.vasevqa("upload", site.folder / "photos", "inputs/photos").stdout
    )
    with cut(site, 4 << 20, 3) as (cutter, env):
        site.vasevqa("download", "-", "inputs/photos", site.folder / "back", env=env)
        assert cutter.cuts == 3
    assert contents(site.folder / "back") == contents(site.folder / "photos")
    assert not list((site.volume / "inputs").rglob(".*"))
    until(lambda: not site.names("pods"), "the removal of the pods", 120)


def test_a_killed_upload_resumes_in_the_middle_of_a_file(site: Site) -> None:  # noqa: F811
    site.be_a_user()
    (site.folder / "model").mkdir()
    (site.folder / "model/weights").write_bytes(os.urandom(24 << 20))
    with cut(site, 6 << 20, 99) as (_, env):  # this upload never finishes: each connection ends after 6 MB
        process = site.start("upload", site.folder / "model", env=env)
        assert process.stderr is not None
        process.stderr.readline()
        process.kill()
        process.communicate()
    [part] = (site.volume / "model").iterdir()
    assert part.name.endswith(".part")
    arrived = part.stat().st_size
    assert arrived
    out = site.vasevqa("upload", site.folder / "model").stdout
    assert "1 files, 1 sent" in out
    assert contents(site.volume / "model") == contents(site.folder / "model")


def test_paths_outside_the_volume_and_in_the_launchers_folders_are_refused(site: Site) -> None:  # noqa: F811
    site.be_a_user()
    (site.folder / "a.txt").write_text("a")
    (site.volume / "out").symlink_to("/etc")
    for words, says in (
        (("upload", site.folder / "a.txt", "../a.txt"), "leads outside the volume"),
        (("upload", site.folder / "a.txt", "/etc/a.txt"), "leads outside the volume"),
        (("upload", site.folder / "a.txt", "out/a.txt"), "leads outside the volume"),
        (("upload", site.folder / "a.txt", "artifacts/a.txt"), "belong to the launcher"),
        (("download", "-", "../etc/passwd", site.folder / "b"), "leads outside the volume"),
        (("download", "-", "out/passwd", site.folder / "b"), "leads outside the volume"),
        (("download", "norun", "report.html", site.folder / "b"), "There is no runs/norun/report.html on the volume"),
    ):
        result = site.vasevqa(*words, check=2)
        assert says in result.stderr, words
        assert len(result.stderr.splitlines()) == 1
    assert not (site.folder / "b").exists()
    site.vasevqa("upload", site.folder / "a.txt")
    assert (site.volume / "a.txt").read_text() == "a"
