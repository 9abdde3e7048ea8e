"""A server with bad answers: which requests are repeated, and which are not."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml

from vasevqa.backends.kubernetes.api import Api, ApiError
from vasevqa.errors import ClusterError, ClusterUnreachable


@contextmanager
def server(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """Open a port on this machine; `handle` gets each connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    handle(connection)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def api(folder: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> Api:
    path = folder / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": address}}],
        "users": [{"name": "u", "user": {"token": "secret-of-mine"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "vases"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(path))
    # the client reads KUBECONFIG once, at import
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    return Api(None, None)


def test_a_broken_handshake_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(lambda connection: connection.close()) as port, pytest.raises(ClusterUnreachable):
        api(tmp_path, f"https://127.0.0.1:{port}", monkeypatch).get("/version")


def test_a_missing_server_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(lambda connection: None) as port:
        pass
    with pytest.raises(ClusterUnreachable, match="doesn't answer"):
        api(tmp_path, f"https://127.0.0.1:{port}", monkeypatch).get("/version")


def test_an_untrusted_certificate_is_not_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=127.0.0.1",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    subprocess.run(
        [*words, "-keyout", tmp_path / "key", "-out", tmp_path / "certificate"], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")

    def handle(connection: socket.socket) -> None:
        context.wrap_socket(connection, server_side=True).close()

    with server(handle) as port, pytest.raises(ClusterError, match="has no valid certificate") as caught:
        api(tmp_path, f"https://127.0.0.1:{port}", monkeypatch).get("/version")
    assert not isinstance(caught.value, ClusterUnreachable)


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        ("503 Service Unavailable", ClusterUnreachable, "doesn't answer properly"),
        ("429 Too Many Requests", ClusterUnreachable, "doesn't answer properly"),
        ("401 Unauthorized", ApiError, "renew your login"),
        ("403 Forbidden", ApiError, "broken"),
        ("200 OK", ClusterUnreachable, "is incomplete"),
    ],
)
def test_each_http_status_has_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, kind: type[ClusterError], says: str
) -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(f'HTTP/1.1 {answer}\r\nContent-Length: 20\r\nConnection: close\r\n\r\n{{"broken": '.encode())
        if answer.startswith("4") or answer.startswith("5"):
            connection.sendall(b" " * 9)

    with server(handle) as port, pytest.raises(kind, match=says) as caught:
        api(tmp_path, f"http://127.0.0.1:{port}", monkeypatch).get("/version")
    assert "secret-of-mine" not in str(caught.value)
