"""The page's server as other programs, other sites and other tabs meet it."""

from __future__ import annotations

import errno
import http.client
import io
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from tests.review import kit
from vasevqa import files, storage
from vasevqa.curation import decoding
from vasevqa.errors import ConfigError
from vasevqa.review.labels import FILE, LabelFile
from vasevqa.review.server import Server
from vasevqa.review.session import Session

JSON = {"Content-Type": "application/json"}


@dataclass
class Browser:
    """Asks the server as a browser does that has opened its link, unless told otherwise."""

    server: Server
    links: list[str]
    cookie: str = ""
    token: str = ""
    replies: list[http.client.HTTPResponse] = field(default_factory=list)

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=20)
        mine = {"Cookie": self.cookie, "X-Vasevqa": self.token, **JSON}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        content = None if body is None else body if isinstance(body, str) else json.dumps(body)
        connection.request(method, path, content, {**mine, **given})
        reply = connection.getresponse()
        self.replies.append(reply)
        read = reply.read()
        connection.close()
        return reply.status, read

    def enter(self) -> Browser:
        path = self.links[-1].removeprefix(self.server.origin)
        status, _ = self.ask("GET", path)
        assert status == 303
        assert self.replies[-1].headers["Location"] == "/"
        self.cookie = self.replies[-1].headers["Set-Cookie"].partition(";")[0]
        found = re.search(rb'data-token="([^"]+)"', self.ask("GET", "/")[1])
        assert found is not None
        self.token = found[1].decode()
        return self


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Browser]:
    """A browser that hasn't opened the link yet."""
    record = kit.record(kit.per_vase(tmp_path / "photos"), tmp_path / "quality")
    links: list[str] = []
    with Server(Session(record, "anna"), 0, links.append) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        server.new_link()
        yield Browser(server, links)
        server.shutdown()
        thread.join()


@pytest.fixture
def browser(outside: Browser) -> Browser:
    return outside.enter()


def current(browser: Browser) -> int:
    return int(json.loads(browser.ask("GET", "/state")[1])["picture"])


def test_a_label_reaches_the_file(browser: Browser, tmp_path: Path) -> None:
    picture = current(browser)
    status, answer = browser.ask("POST", "/label", {"picture": picture, "label": "high", "milliseconds": 40})
    assert status == 200
    assert json.loads(answer)["done"] == 1
    [line] = map(json.loads, (tmp_path / "quality" / FILE).read_text().splitlines())
    assert (line["label"], line["milliseconds"], line["who"]) == ("high", 40, "anna")
    assert json.loads(browser.ask("POST", "/undo", {})[1])["done"] == 0


def test_pictures_are_jpegs_of_their_size_without_metadata(browser: Browser, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "of anna"
    Image.new("RGB", (2400, 600), (200, 10, 10)).save(tmp_path / "photos/V1/IMG_0000.png", exif=exif)
    for size, expected in (("large", (400, 1600)), ("small", (80, 320))):
        status, content = browser.ask("GET", f"/{size}/0?x")
        with Image.open(io.BytesIO(content)) as image:
            assert (status, image.format, image.size, dict(image.getexif())) == (200, "JPEG", expected, {})


def test_who_has_not_opened_the_link_sees_nothing(outside: Browser, tmp_path: Path) -> None:
    for path in ("/", "/state", "/large/0", "/small/0", "/favicon.ico", "/?token=", "/?token=guess", "/nowhere"):
        status, content = outside.ask("GET", path)
        assert status == 403, path
        assert b"opened the link" in content
    for cookie in (f"{outside.server.cookie_name}=guess", "=", "a;;b\x80", f"{outside.server.cookie_name}="):
        assert outside.ask("GET", "/state", Cookie=cookie)[0] == 403
    assert outside.ask("POST", "/undo", {}, X_Vasevqa=outside.server.token)[0] == 403
    assert not (tmp_path / "quality").exists()


def test_a_link_opens_the_page_once_and_then_a_new_one_is_told(outside: Browser) -> None:
    first = outside.links[0].removeprefix(outside.server.origin)
    assert outside.ask("GET", first)[0] == 303
    assert outside.ask("GET", first)[0] == 403
    assert len(outside.links) == 2
    assert outside.ask("GET", "/?token=guess")[0] == 403
    assert len(outside.links) == 2
    outside.enter()
    assert outside.ask("GET", "/?token=guess")[0] == 303  # the cookie is what counts


def test_another_site_can_neither_read_nor_write(browser: Browser, tmp_path: Path) -> None:
    label = {"picture": current(browser), "label": "high"}
    port = browser.server.server_port
    # A name that was made to lead to this machine (DNS rebinding).
    for host in ("evil.example", f"evil.example:{port}", f"127.0.0.1:{port + 1}", "127.0.0.1", ""):
        assert browser.ask("GET", "/state", Host=host)[0] == 403
        assert browser.ask("POST", "/label", label, Host=host)[0] == 403
    assert browser.ask("POST", "/label", label, Origin="http://evil.example")[0] == 403
    assert browser.ask("POST", "/label", label, Origin="null")[0] == 403
    assert browser.ask("POST", "/label", label, X_Vasevqa="guess")[0] == 403
    assert browser.ask("POST", "/label", label, X_Vasevqa="")[0] == 403
    assert browser.ask("POST", "/label", label, Content_Type="text/plain")[0] == 403
    assert not (tmp_path / "quality").exists()
    assert browser.ask("POST", "/label", label, Origin=browser.server.origin)[0] == 200
    assert browser.ask("GET", "/state", Host=f"localhost:{port}")[0] == 200


@pytest.mark.parametrize(
    "path", ["/large/../../etc/passwd", "/large/%2e%2e/x", "/large/12", "/large/-1", "/large/1e3", "//etc/passwd", "/x"]
)
def test_no_path_reaches_the_file_system(browser: Browser, path: str) -> None:
    assert browser.ask("GET", path) == (404, b"")


@pytest.mark.parametrize("body", ["", "[]", '{"picture": "0", "label": "high"}', '{"picture": 0}', "x" * 5000, "\xe9"])
def test_a_body_that_is_no_label_is_refused(browser: Browser, body: str, tmp_path: Path) -> None:
    current(browser)
    assert browser.ask("POST", "/label", body)[0] == 400
    assert browser.ask("POST", "/elsewhere", {})[0] == 404
    assert not (tmp_path / "quality").exists()


def test_a_photograph_that_was_not_shown_is_not_labelled(browser: Browser) -> None:
    status, answer = browser.ask("POST", "/label", {"picture": (current(browser) + 1) % 12, "label": "high"})
    assert status == 409
    assert "not shown" in json.loads(answer)["error"]


def test_a_disk_that_takes_no_label_is_said(browser: Browser, tmp_path: Path) -> None:
    picture = current(browser)
    (tmp_path / "quality").write_text("a file where the folder should be")
    status, answer = browser.ask("POST", "/label", {"picture": picture, "label": "high"})
    assert status == 500
    assert json.loads(answer)["error"].startswith("The label was not saved: ")
    assert current(browser) == picture


def test_labels_that_can_t_be_read_are_not_called_unsaved(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current(browser)
    with monkeypatch.context() as patched:

        def failing(file: LabelFile) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        (tmp_path / "quality").mkdir()
        (tmp_path / "quality" / FILE).touch()
        patched.setattr(LabelFile, "refresh", failing)
        status, answer = browser.ask("GET", "/state")
    assert status == 500
    assert json.loads(answer)["error"].startswith("The labels can't be shown now: could not read ")
    assert current(browser) is not None


def test_a_copy_that_fails_is_said_beside_the_next_photograph(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = current(browser)

    def failing(source: Path, target: Path) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "copy", failing)
    status, answer = browser.ask("POST", "/label", {"picture": picture, "label": "high"})
    state = json.loads(answer)
    assert (status, state["done"]) == (200, 1)
    assert state["picture"] not in (picture, None)
    assert "The labels are saved" in state["problems"][0]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EOVERFLOW])
def test_a_photograph_that_the_storage_refuses_is_one_answer_and_not_the_end(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: int
) -> None:
    monkeypatch.setattr(storage, "PAUSES", (0.0,))
    first = current(browser)
    decode = decoding._from_file
    ill = browser.server.session.record.photographs[first].path

    def failing(path: Path, cover: int | None) -> Image.Image:
        if path == ill:
            raise OSError(number, os.strerror(number))
        return decode(path, cover)

    monkeypatch.setattr(decoding, "_from_file", failing)
    status, content = browser.ask("GET", f"/small/{first}")
    assert status == 503
    assert content.startswith(b"could not read")
    assert current(browser) != first
    assert browser.ask("POST", "/label", {"picture": current(browser), "label": "high"})[0] == 200
    assert capfd.readouterr().err == ""


def test_the_page_may_do_nothing_but_its_own_work(browser: Browser) -> None:
    browser.ask("GET", "/")
    headers = browser.replies[-1].headers
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["img-src"] == policy["connect-src"] == "'self'"
    nonce = re.fullmatch(r"'nonce-([\w-]{20,})'", policy["script-src"])
    assert nonce is not None
    assert policy["style-src"] == policy["script-src"]
    _, first = browser.ask("GET", "/")
    assert nonce[1].encode() not in first  # each answer has its own
    assert b"{{" not in first
    assert not re.findall(rb"(?:https?:)?//[a-z]", re.sub(rb"^\s*//.*|  // .*", b"", first, flags=re.M))
    assert headers["Cache-Control"] == "no-store"
    assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")


def test_it_listens_on_this_machine_alone(browser: Browser) -> None:
    assert browser.server.socket.getsockname()[0] == "127.0.0.1"
    assert browser.links[0].startswith("http://127.0.0.1:")


def test_a_port_that_is_taken_is_one_sentence(browser: Browser, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"Port {browser.server.server_port} is taken on this machine"):
        Server(browser.server.session, browser.server.server_port, print)


def test_a_connection_that_says_nothing_keeps_nobody_waiting(browser: Browser) -> None:
    with socket.create_connection(("127.0.0.1", browser.server.server_port)):
        assert browser.ask("GET", "/state")[0] == 200
