"""Follow a launcher whose log ends early, is lost, or continues in another pod.

The tests with a real cluster are in tests/e2e.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.backends.test_kubernetes_api import api, server
from vasevqa.backends.cluster import Cluster
from vasevqa.backends.kubernetes import launches
from vasevqa.backends.kubernetes.api import ApiError
from vasevqa.backends.kubernetes.session import Session
from vasevqa.errors import ClusterError

FOUND = "2026-11-25T05:16:1"
# the message of a kubelet about a removed pod
LOST = b"rpc error: code = NotFound desc = an error occurred when try to find container: not found"


def said(*lines: str) -> bytes:
    return "".join(f"{FOUND}{at}.5Z {text}\n" for at, text in enumerate(lines)).encode()


def pod(name: str, made: int, state: str = "running", **ended: int) -> dict[str, Any]:
    metadata = {"name": name, "creationTimestamp": f"{FOUND}{made}Z"}
    return {
        "metadata": metadata,
        "status": {
            "phase": "Running",
            "containerStatuses": [{"state": {state: ended or {"startedAt": f"{FOUND}{made}Z"}}}],
        },
    }


class Told:
    """A server with a list of pairs (request, answer). The last answer to a request is repeated."""

    def __init__(self, *answers: tuple[str, object]) -> None:
        self.answers, self.asked = list(answers), list[str]()

    def __call__(self, connection: socket.socket) -> None:
        path = connection.recv(65536).split()[1].decode()
        self.asked.append(path)
        [(place, answer), *more] = [
            (place, answer) for place, (part, answer) in enumerate(self.answers) if path.split("?")[0].endswith(part)
        ]
        if more:
            del self.answers[place]
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        broken = 0
        if body.endswith(b"<broken>"):
            body, broken = body[: -len(b"<broken>")], 1
        status = b"403 Forbidden" if answer == FORBIDDEN else b"200 OK"
        connection.sendall(
            b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body) + broken, body)
        )


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Told], tuple[int, list[str]]]:
    monkeypatch.setattr(launches, "LOOK_SECONDS", 0.01)

    def call(told: Told) -> tuple[int, list[str]]:
        with server(told) as port:
            api(tmp_path, f"http://127.0.0.1:{port}", monkeypatch)
            lines: list[str] = []
            return launches.follow(Session(Cluster()), "words", lines.append, " -n vases"), lines

    return call


COMPLETE = {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
FAILED = {"status": {"conditions": [{"type": "Failed", "status": "True"}]}}
FORBIDDEN = {"message": "jobs is forbidden"}
RUNNING: dict[str, object] = {"status": {}}


def test_a_kubelet_message_about_a_lost_log_does_not_hide_the_next_pods_log(
    follow: Callable[[Told], tuple[int, list[str]]],
) -> None:
    told = Told(
        ("/jobs/words", RUNNING),
        ("/jobs/words", COMPLETE),
        ("/a/log", said("run 1", "first: started") + LOST),
        ("/b/log", said("run 1", "first: found running, adopted")),
        ("/pods", {"items": [pod("a", 1)]}),
        ("/pods", {"items": [pod("a", 1), pod("b", 2)]}),
    )
    assert follow(told) == (0, ["run 1", "first: started", "run 1", "first: found running, adopted"])


def test_a_log_that_breaks_off_near_its_end_is_read_completely(follow: Callable[[Told], tuple[int, list[str]]]) -> None:
    lines = said("run 1", "first: started", "first: done")
    told = Told(
        ("/jobs/words", COMPLETE),
        ("/a/log", lines[: len(said("run 1", "first: started"))] + b"<broken>"),
        ("/a/log", lines),
        ("/pods", {"items": [pod("a", 1)]}),
    )
    assert follow(told) == (0, ["run 1", "first: started", "first: done"])
    assert any("sinceTime=2026-11-25T05" in path for path in told.asked)


def test_the_log_of_a_failed_run_is_read_completely(
    follow: Callable[[Told], tuple[int, list[str]]],
) -> None:
    told = Told(
        ("/jobs/words", RUNNING),
        ("/a/log", said("run 1") + b"<broken>"),
        ("/a/log", said("run 1", "first: failed")),
        ("/pods", {"items": [pod("a", 1, "terminated", exitCode=3)]}),
    )
    assert follow(told) == (3, ["run 1", "first: failed"])


def test_the_log_of_a_launcher_between_two_starts_is_read(follow: Callable[[Told], tuple[int, list[str]]]) -> None:
    resting = pod("a", 1, "waiting")
    resting["status"]["containerStatuses"][0]["lastState"] = {"terminated": {"exitCode": 3}}
    told = Told(("/jobs/words", RUNNING), ("/a/log", said("run 1", "first: failed")), ("/pods", {"items": [resting]}))
    assert follow(told) == (3, ["run 1", "first: failed"])


def test_a_lost_launcher_log_is_reported_with_the_status_command(
    follow: Callable[[Told], tuple[int, list[str]]],
) -> None:
    for job, pods, code in ((FAILED, [], 1), (COMPLETE, [], 0), (FAILED, [pod("a", 1, "terminated", exitCode=3)], 3)):
        found, lines = follow(Told(("/jobs/words", job), ("/a/log", LOST), ("/pods", {"items": pods})))
        assert found == code
        assert [line for line in lines if "`vasevqa status -n vases`" in line] == lines
        assert len(lines) == 1


def test_an_earlier_exit_code_is_ignored_while_the_next_process_runs(
    follow: Callable[[Told], tuple[int, list[str]]],
) -> None:
    again, ended = pod("a", 1), pod("a", 1, "terminated", exitCode=0)
    again["status"]["containerStatuses"][0]["lastState"] = {"terminated": {"exitCode": 1}}
    told = Told(
        ("/jobs/words", RUNNING),
        ("/jobs/words", COMPLETE),
        ("/a/log", said("run 1")),
        ("/a/log", said("run 1", "first: done")),
        *(("/pods", {"items": [item]}) for item in (again, again, ended)),
    )
    assert follow(told) == (0, ["run 1", "first: done"])


def test_the_client_waits_for_rights_that_a_restarted_server_does_not_know_yet(
    follow: Callable[[Told], tuple[int, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pods = [("/a/log", said("run 1")), ("/pods", {"items": [pod("a", 1)]})]
    assert follow(Told(("/jobs/words", RUNNING), ("/jobs/words", FORBIDDEN), ("/jobs/words", COMPLETE), *pods)) == (
        0,
        ["run 1"],
    )
    monkeypatch.setattr(launches, "REFUSED_SECONDS", 0)
    for answers in ([FORBIDDEN], [RUNNING, FORBIDDEN]):  # a user without the right gets an error at once
        with pytest.raises(ApiError, match="you have no permission"):
            follow(Told(*(("/jobs/words", answer) for answer in answers), *pods))


def named(kind: str, name: str, made: int, ends: str = "", label: bool = False) -> dict[str, Any]:
    labels = {"vasevqa/launch": name} if label else {}
    conditions = [{"type": ends, "status": "True"}] if ends else []
    return {
        "metadata": {"name": name, "creationTimestamp": f"{FOUND}{made}Z", "labels": labels},
        "status": {"conditions": conditions},
        "kind": kind,
    }


def found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configmaps: list[object], *jobs: list[object]
) -> tuple[str, Told]:
    monkeypatch.setattr(launches, "LOOK_SECONDS", 0.01)
    told = Told(("/configmaps", {"items": configmaps}), *(("/jobs", {"items": listed}) for listed in jobs))
    with server(told) as port:
        api(tmp_path, f"http://127.0.0.1:{port}", monkeypatch)
        return launches.find(Session(Cluster()), None), told


def test_the_newest_launch_is_the_launch_with_the_newest_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback, or an older recipe that is submitted again, has an old ConfigMap and a new Job."""
    maps: list[object] = [named("ConfigMap", "a", 1), named("ConfigMap", "b", 2)]
    assert (
        found(tmp_path, monkeypatch, maps, [named("Job", "b", 3, label=True), named("Job", "a", 4, label=True)])[0]
        == "a"
    )


def test_attach_waits_for_the_launch_of_the_chart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps: list[object] = [named("ConfigMap", "a", 1), named("ConfigMap", "b", 2)]
    old = named("Job", "a", 1, "Complete", label=True)
    begun, done = named("Job", "it-launch", 2), named("Job", "it-launch", 2, "Complete")
    name, told = found(
        tmp_path, monkeypatch, maps, [old, begun], [old, begun], [old, done, named("Job", "b", 3, label=True)]
    )
    assert name == "b"
    assert sum("/jobs" in path for path in told.asked) >= 3
    with pytest.raises(ClusterError, match="logs job/it-launch"):
        found(tmp_path, monkeypatch, maps, [old, named("Job", "it-launch", 2, "Failed")])
    later = named("Job", "b", 3, label=True)
    assert found(tmp_path, monkeypatch, maps, [old, named("Job", "it-launch", 2, "Failed"), later])[0] == "b"


def test_a_launch_belongs_to_the_release_of_its_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def release(*claims: str) -> str | None:
        items = [
            {"metadata": {"name": f"it{number}", "creationTimestamp": "1"}, "data": {"cluster.yaml": f"claim: {claim}"}}
            for number, claim in enumerate(claims)
        ]
        with server(Told(("/configmaps", {"items": items}))) as port:
            api(tmp_path, f"http://127.0.0.1:{port}", monkeypatch)
            return launches.release(Session(Cluster(claim="mine")))

    assert release("other", "mine") == "it1"
    assert release("other") is None
    assert release("mine", "mine") is None
