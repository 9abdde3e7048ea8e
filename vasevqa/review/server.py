"""The page's server. It listens only on this machine, and answers only the browser that opened the printed link.

No path of a request reaches the file system: a request names a photograph by its number.
"""

from __future__ import annotations

import errno
import importlib.resources
import json
import re
import secrets
import socket
import socketserver
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vasevqa.curation.images import Unreadable
from vasevqa.errors import ConfigError, VaseError
from vasevqa.review.labels import NotSaved, reason
from vasevqa.review.session import Session, State

HERE = "127.0.0.1"
MOST = 4096  # maximum size of a request's body in bytes
REFUSED = (
    "This page belongs to the browser that opened the link which `vasevqa review` printed. The link works once; when an"
    " old link is opened, a new one is printed."
)
_PICTURE = re.compile(r"/(large|small)/([0-9]{1,9})")
_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Given(BaseModel):
    """A label as the page sends it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    picture: int = Field(ge=0)
    label: str
    milliseconds: int | None = Field(None, ge=0)


class Server(ThreadingHTTPServer):
    """Serves one session on `port` (0 means any free port). `tell` is called with each link that opens the page.

    Raise ConfigError if the port can't be used.
    """

    daemon_threads = True

    def __init__(self, session: Session, port: int, tell: Callable[[str], None]) -> None:
        self.session, self.tell = session, tell
        self.page = importlib.resources.files("vasevqa.review").joinpath("page.html").read_text(encoding="utf-8")
        self.cookie, self.token = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self._links: list[str] = []  # only the last link works, and only once
        self._used = False
        try:
            super().__init__((HERE, port), _Handler)
        except OSError as error:
            why = {errno.EADDRINUSE: "is taken", errno.EACCES: "is not permitted"}.get(
                error.errno or 0, "can't be used"
            )
            raise ConfigError(f"Port {port} {why} on this machine; give another --port, or leave it out.") from None

    def server_bind(self) -> None:
        """Bind the socket without looking up the machine's name, since a lookup could ask a distant name server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HERE, self.server_address[1]

    @property
    def origin(self) -> str:
        """The address of the page."""
        return f"http://{HERE}:{self.server_port}"

    @property
    def cookie_name(self) -> str:
        """The name of the cookie. It contains the port, because browsers share cookies among all ports of a host."""
        return f"vasevqa-{self.server_port}"

    def new_link(self) -> str:
        """Create a link that opens the page once. Pass the link to `tell`, and return it."""
        self._links.append(secrets.token_urlsafe(32))
        self._used = False
        link = f"{self.origin}/?token={self._links[-1]}"
        self.tell(link)
        return link

    def admits(self, token: str) -> bool:
        """Return whether a link's token opens the page. A used or replaced link is refused, and a new link is made."""
        if not any(_same(token, known) for known in self._links):
            return False
        if self._used or not _same(token, self._links[-1]):
            self.new_link()
            return False
        self._used = True
        return True

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Ignore the error if a browser closed its connection or let it time out."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "vasevqa", ""
    timeout = 60

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        token = parse_qs(url.query).get("token", [""])[0] if url.path == "/" else ""
        if not self._is_addressed():
            self._refuse()
        elif token and (self._is_known() or self.server.admits(token)):
            cookie = f"{self.server.cookie_name}={self.server.cookie}; Path=/; HttpOnly; SameSite=Strict"
            self._answer(HTTPStatus.SEE_OTHER, b"", {"Location": "/", "Set-Cookie": cookie})
        elif not self._is_known():
            self._refuse()
        elif url.path == "/":
            self._page()
        elif url.path == "/state":
            self._act(self.server.session.state)
        elif match := _PICTURE.fullmatch(url.path):
            self._picture(match[1], int(match[2]))
        elif url.path == "/favicon.ico":
            self._answer(HTTPStatus.NO_CONTENT, b"")
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"")

    def do_POST(self) -> None:
        if not (self._is_addressed() and self._is_known() and self._is_from_page()):
            self._refuse()
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MOST:
            self.close_connection = True
            self._answer(HTTPStatus.BAD_REQUEST, b"")
            return
        body = self.rfile.read(int(length))
        session = self.server.session
        if self.path == "/undo":
            self._act(session.undo)
        elif self.path == "/label":
            try:
                given = Given.model_validate_json(body)
            except ValidationError:
                self._answer(HTTPStatus.BAD_REQUEST, b"")
                return
            self._act(lambda: session.label(given.picture, given.label, given.milliseconds))
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"")

    def _is_addressed(self) -> bool:
        """Return whether the request's Host header names this server.

        This stops DNS rebinding: a page whose domain resolves to this machine sends that domain as Host.
        """
        port = self.server.server_port
        return self.headers.get("Host", "") in (f"{HERE}:{port}", f"localhost:{port}")

    def _is_known(self) -> bool:
        """Return whether the request has the cookie of the browser that opened the link."""
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie_name)
        except CookieError:
            return False
        return found is not None and _same(found.value, self.server.cookie)

    def _is_from_page(self) -> bool:
        """Return whether the page itself sent the request.

        A different site doesn't know the token, and its requests name a different origin.
        """
        origin = self.headers.get("Origin", f"http://{self.headers.get('Host', '')}")
        return (
            _same(self.headers.get("X-Vasevqa", ""), self.server.token)
            and origin == f"http://{self.headers.get('Host', '')}"
            and self.headers.get_content_type() == "application/json"
        )

    def _page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self';"
            " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        text = self.server.page.replace("{{nonce}}", nonce).replace("{{token}}", self.server.token)
        self._answer(HTTPStatus.OK, text.encode(), {"Content-Security-Policy": policy}, "text/html; charset=utf-8")

    def _picture(self, size: str, index: int) -> None:
        session = self.server.session
        if index >= len(session.record.photographs):
            self._answer(HTTPStatus.NOT_FOUND, b"")
            return
        try:
            content = session.picture(size, index)
        except Unreadable as error:
            self._answer(HTTPStatus.UNPROCESSABLE_ENTITY, error.reason.encode())
            return
        except (VaseError, OSError) as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, reason(error, "read", "the photograph").encode())
            return
        # The URL contains the session's name, so that the browser never shows a cached picture of an earlier session.
        self._answer(HTTPStatus.OK, content, {"Cache-Control": "private, max-age=3600"}, "image/jpeg")

    def _act(self, action: Callable[[], State]) -> None:
        try:
            state = action()
        except NotSaved as error:
            self._json(HTTPStatus.INTERNAL_SERVER_ERROR, json.dumps({"error": str(error)}))
        except VaseError as error:
            self._json(HTTPStatus.CONFLICT, json.dumps({"error": str(error)}))
        except OSError as error:  # the file with labels that other processes may have appended can't be read
            why = reason(error, "read", self.server.session.record.file.path)
            text = (
                f"The labels can't be shown now: {why}. Every label that was saved before stays; load the page again."
            )
            self._json(HTTPStatus.INTERNAL_SERVER_ERROR, json.dumps({"error": text}))
        else:
            self._json(HTTPStatus.OK, state.model_dump_json())

    def _json(self, status: HTTPStatus, text: str) -> None:
        self._answer(status, text.encode(), kind="application/json")

    def _refuse(self) -> None:
        self.close_connection = True
        self._answer(HTTPStatus.FORBIDDEN, REFUSED.encode())

    def _answer(
        self,
        status: HTTPStatus,
        content: bytes,
        headers: dict[str, str] | None = None,
        kind: str = "text/plain; charset=utf-8",
    ) -> None:
        self.send_response(status)
        for name, value in {"Cache-Control": "no-store", **_SAFE, **(headers or {})}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        if content:
            self.send_header("Content-Type", kind)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Write no log, because the link holds a secret."""


def _same(one: str, other: str) -> bool:
    return secrets.compare_digest(one.encode(), other.encode())
