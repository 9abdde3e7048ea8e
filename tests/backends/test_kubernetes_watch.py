"""The watch of a collection: bookmarks, versions that are too old, and a server that doesn't answer."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.backends.test_kubernetes_api import api, server
from tests.pipeline.kit import wait_for
from vasevqa.backends.kubernetes import watch
from vasevqa.backends.kubernetes.watch import Informer


def thing(name: str, version: int) -> dict[str, object]:
    return {"metadata": {"uid": name, "name": name, "resourceVersion": str(version)}}


class Script:
    """A server that gives one answer after the other: a list of objects, the events of a watch, or None (no answer)."""

    def __init__(self, *answers: object) -> None:
        self.answers, self.asked, self.rest = list(answers), list[dict[str, str]](), threading.Event()

    def __call__(self, connection: socket.socket) -> None:
        query = urlsplit(connection.recv(65536).split()[1].decode()).query
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        self.asked.append(asked)
        if not self.answers:
            self.rest.wait(30)  # a watch without events
            return
        answer = self.answers.pop(0)
        if answer is None:
            connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        body = json.dumps(answer) if isinstance(answer, dict) else "".join(json.dumps(event) + "\n" for event in answer)  # type: ignore[attr-defined]
        connection.sendall(
            f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )


def test_a_watch_continues_from_bookmarks_and_lists_again_if_necessary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SHORTEST", 0.0)
    script = Script(
        {"metadata": {"resourceVersion": "1"}, "items": [thing("a", 1)]},
        [
            {"type": "ADDED", "object": thing("b", 3)},
            {"type": "BOOKMARK", "object": thing("", 7)},
        ],  # then this watch ends
        [{"type": "ERROR", "object": {"code": 410, "reason": "Expired"}}],
        None,
        {"metadata": {"resourceVersion": "9"}, "items": [thing("b", 8), thing("c", 9)]},
    )
    told: list[tuple[object, bool]] = []
    absent: list[str] = []
    with server(script) as port:
        client = api(tmp_path, f"http://127.0.0.1:{port}", monkeypatch)
        news = threading.Condition()
        mirror = Informer(
            client, client.path("pods"), {}, news, lambda item, alive: told.append((item["metadata"]["name"], alive))
        )
        real = mirror._broke
        monkeypatch.setattr(mirror, "_broke", lambda state: (real(state), absent.append(mirror.away)))
        mirror.start()
        wait_for(lambda: len(script.asked) == 6, "a watch after the second list")
        with news:
            assert set(mirror.objects) == {"b", "c"}
            assert mirror.away == ""
        mirror.close()
        script.rest.set()
        mirror.join(30)
    assert told == [("a", True), ("b", True), ("a", False), ("b", True), ("c", True)]
    watches = [(asked["resourceVersion"], asked["allowWatchBookmarks"]) for asked in script.asked if "watch" in asked]
    assert watches == [("1", "true"), ("7", "true"), ("9", "true")]
    assert len(absent) == 1
    assert "doesn't answer" in absent[0]
