"""The findings of `vasevqa doctor` from a cluster's answers: rights, logins, nodes, images.

The tests with a real cluster are in tests/e2e.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.test_kubernetes_api import api, server
from tests.pipeline.kit import Kit
from vasevqa.backends.checks import Finding
from vasevqa.backends.cluster import Cluster, Toleration
from vasevqa.backends.kubernetes import checks
from vasevqa.backends.kubernetes.session import Session
from vasevqa.spec import Resources

CLAIM = {"status": {"phase": "Bound", "capacity": {"storage": "9Gi"}}, "spec": {"accessModes": ["ReadWriteMany"]}}
UNPULLED = {
    "status": {"containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]}
}
LAUNCHER = {f"{verb} {resource}" for _, resource, verbs in checks.LAUNCHER for verb in verbs}
SECRET = "secret-of-mine"  # the token that `api` writes into the kubeconfig
GPU = "nvidia.com/gpu"


class Place:
    """A server with one claim, these nodes, and rights such as 'create jobs'. Without `known`, the server refuses every
    login.
    """

    def __init__(
        self, nodes: Collection[dict[str, Any]] = (), rights: Collection[str] = (), known: bool = True
    ) -> None:
        self.nodes, self.rights, self.known = list(nodes), rights, known
        self.asked: list[str] = []

    def __call__(self, connection: socket.socket) -> None:
        head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += connection.recv(65536)
        method, path, _ = head.split(b"\r\n")[0].decode().split()
        self.asked.append(f"{method} {path}")
        status, answer = (
            self.answer(method, path.rpartition("/")[2], path, json.loads(body or b"{}"))
            if self.known
            else (401, {"message": "Unauthorized"})
        )
        text = json.dumps(answer).encode()
        connection.sendall(
            b"HTTP/1.1 %d x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (status, len(text), text)
        )

    def answer(self, method: str, last: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if last == "version":
            return 200, {"gitVersion": "v1.30.0"}
        if last == "nodes":
            return 200, {"items": self.nodes}
        if last == "selfsubjectaccessreviews":
            asked = body["spec"]["resourceAttributes"]
            resource = "/".join(filter(None, [asked["resource"], asked.get("subresource")]))
            return 201, {"status": {"allowed": f"{asked['verb']} {resource}" in self.rights}}
        if "/persistentvolumeclaims/" in path:
            return 200, CLAIM
        if "/pods" in path:
            return 200, UNPULLED if method == "GET" else {}
        return 404, {"message": f"there is no {path}"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """The server that the kubeconfig names."""
    made = Place()
    with server(made) as port:
        api(tmp_path, f"http://127.0.0.1:{port}", monkeypatch)
        yield made


def doctor(folder: Path, *words: str | Path, check: int) -> dict[str, dict[str, Any]]:
    kit = Kit(folder / f"kit-{check}-{len(words)}")
    kit.volume.root.mkdir(parents=True)
    out = kit.call("doctor", *words, "--backend", "kubernetes", "--json", check=check).stdout
    assert SECRET not in out
    return {found["what"]: found for found in map(json.loads, out.splitlines())}


def node(name: str, gpus: int = 8, *taints: str, **spec: Any) -> dict[str, Any]:
    """Return a node with taints in the notation of `kubectl taint`."""
    parts = [taint.partition(":")[::2] for taint in taints]
    made = [
        {"key": what.partition("=")[0], "value": what.partition("=")[2], "effect": effect} for what, effect in parts
    ]
    return {"metadata": {"name": name}, "spec": {**spec, "taints": made}, "status": {"allocatable": {GPU: str(gpus)}}}


def gpus(place: Place, *nodes: dict[str, Any], tolerations: Collection[Toleration] = (), **asked: Any) -> Finding:
    place.nodes = list(nodes)
    [finding] = checks.gpus(
        Session(Cluster(tolerations=list(tolerations))),
        {"sft": Resources(**{"gpus": 1, **asked}), "merge-sft": Resources()},
    )
    return finding


def test_a_user_with_the_volume_needs_only_the_launchers_rights(place: Place, tmp_path: Path) -> None:
    place.rights = LAUNCHER
    found = doctor(tmp_path, check=0)
    assert found["rights: jobs"]["state"] == "ok"
    assert "service account" not in found
    assert "rights: pods/exec" not in found
    assert found["images"]["state"] == "not checked"


def test_a_user_without_the_volume_needs_the_users_rights_and_a_launcher_in_the_cluster(
    place: Place, tmp_path: Path
) -> None:
    place.rights = LAUNCHER
    found = doctor(tmp_path, "--volume", tmp_path / "none", check=69)
    assert {what for what, finding in found.items() if finding["state"] == "bad"} == {
        "rights: pods",
        "rights: pods/exec",
        "service account",
    }
    assert found["volume"]["state"] == "not checked"


def test_the_launchers_image_is_not_pulled_if_it_is_not_needed(place: Place, tmp_path: Path) -> None:
    place.rights = LAUNCHER | {"create pods", "delete pods"}
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "inputs: {images: words, train-classifier: words}\nto: classify\nsteps: {classify: {resources: {gpus: 0}}}\n"
    )
    (tmp_path / "words").mkdir()
    found = doctor(tmp_path, recipe, check=69)
    [image] = [what for what in found if what.startswith("image ")]
    assert "/classify:" in image
    assert "`make image STAGE=classify PUSH=1`" in found[image]["text"]


def test_no_pod_is_created_without_the_right_to_delete_it(place: Place, tmp_path: Path) -> None:
    place.rights = LAUNCHER | {"create pods"}
    assert doctor(tmp_path, check=0)["images"]["state"] == "not checked"
    assert not [asked for asked in place.asked if asked.endswith("/pods")]


def test_an_expired_login_is_reported(place: Place, tmp_path: Path) -> None:
    place.known = False
    found = doctor(tmp_path, "--volume", tmp_path / "none", check=69)
    assert list(found) == ["cluster"]
    assert found["cluster"]["state"] == "bad"
    assert "renew your login" in found["cluster"]["text"]


def test_an_image_that_make_images_omits_has_its_own_remedy(place: Place) -> None:
    [finding] = checks.pulls(Session(Cluster()), ["registry.example.org:5000/me/vasevqa/to-megatron@sha256:0123"])
    assert finding.state == "bad"
    assert "`make image STAGE=to-megatron PUSH=1`" in finding.text
    assert place.asked[-1].startswith("DELETE ")


def test_a_cordoned_node_is_not_used(place: Place) -> None:
    assert gpus(place, node("a")).state == "ok"
    mark = "node.kubernetes.io/unschedulable:NoSchedule"  # the cluster adds this taint to every cordoned node
    found = gpus(place, node("a", 8, mark, unschedulable=True))
    assert (found.state, found.code) == ("bad", 69)
    assert "a is cordoned; change" in found.text
    assert gpus(place, node("a", 8, mark, unschedulable=True), node("b")).state == "ok"
    assert (
        gpus(place, node("a", 8, mark, unschedulable=True), tolerations=[Toleration(operator="Exists")]).state == "ok"
    )


@pytest.mark.parametrize(
    ("taint", "toleration", "state"),
    [
        ("team=vision:NoSchedule", None, "bad"),
        ("team=vision:NoExecute", None, "bad"),
        ("team=vision:PreferNoSchedule", None, "ok"),
        ("team=vision:NoSchedule", {"key": "team", "value": "vision"}, "ok"),
        ("team=vision:NoSchedule", {"key": "team", "value": "speech"}, "bad"),
        ("team=vision:NoSchedule", {"key": "team", "operator": "Exists"}, "ok"),
        ("team=vision:NoSchedule", {"key": "team", "operator": "Exists", "effect": "NoExecute"}, "bad"),
        ("team=vision:NoSchedule", {"key": "other", "operator": "Exists"}, "bad"),
        ("team=vision:NoExecute", {"operator": "Exists"}, "ok"),
        ("team:NoSchedule", {"key": "team"}, "ok"),
    ],
)
def test_a_taint_needs_a_toleration(place: Place, taint: str, toleration: dict[str, str] | None, state: str) -> None:
    found = gpus(place, node("a", 8, taint), tolerations=[Toleration(**toleration)] if toleration else [])
    assert found.state == state
    assert (f"a is tainted {taint}, which `tolerations` doesn't cover" in found.text) == (state == "bad")


def test_a_taint_that_the_cluster_may_tolerate_for_gpu_pods_is_a_warning(place: Place) -> None:
    taint = f"{GPU}=present:NoSchedule"
    found = gpus(place, node("a", 8, taint))
    assert (found.state, found.code) == ("warning", 0)
    assert f"a is tainted {taint}, which `tolerations` doesn't cover" in found.text
    assert "ExtendedResourceToleration" in found.text
    assert gpus(place, node("a", 8, taint), tolerations=[Toleration(key=GPU, operator="Exists")]).state == "ok"
    assert gpus(place, node("a", 8, taint), node("b")).state == "ok"
    assert gpus(place, node("a", 8, taint, "team=vision:NoSchedule")).state == "bad"
    assert gpus(place, node("a", 8, f"{GPU}:NoExecute")).state == "bad"
    assert gpus(place, node("a", 8, taint), gpus=9).state == "bad"


def test_nodes_with_gpus_are_named_before_nodes_without_gpus(place: Place) -> None:
    found = gpus(place, *(node(f"cpu-{number}", 0) for number in range(9)), node("a", 8, "team=vision:NoSchedule"))
    assert found.text.startswith("no node has 1 GPUs for this step: a is tainted team=vision:NoSchedule")
