"""Use a namespace from outside or inside the cluster, with clear messages for requests that the cluster refuses."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kubernetes import client, stream

from vasevqa.backends.cluster import Cluster
from vasevqa.backends.kubernetes.api import Api, ApiError
from vasevqa.backends.kubernetes.logs import PATIENCE, Unseen
from vasevqa.backends.kubernetes.nodes import node_of_claim, one_node_only
from vasevqa.backends.kubernetes.pod_template import Manifest
from vasevqa.backends.kubernetes.process import Process
from vasevqa.backends.kubernetes.status import hopeless, trouble
from vasevqa.errors import ClusterError, ClusterUnreachable, ConnectionLost
from vasevqa.text import first_line


class Session(Api):
    """Access to the namespace of `cluster`, with methods for launches, file transfers and checks."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.context, cluster.namespace)
        self.cluster = cluster

    def ask(self, doing: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Return the result of `call`, which is a method of this class.

        If the cluster refuses the request, raise ApiError. The message contains `doing`, which describes the request.
        """
        try:
            return call(*arguments, **options)
        except ApiError as refusal:
            if refusal.status == 403 and "exceeded quota" not in str(refusal):
                said = (
                    f"Could not {doing}: you have no permission in namespace {self.namespace} ({refusal}); ask for the"
                    " role that the chart calls `-user`."
                )
            else:
                said = f"Could not {doing} in namespace {self.namespace}: {refusal}"
            raise ApiError(said, refusal.status) from None

    def find(self, kind: str, name: str) -> Manifest | None:
        """Return an object of the namespace; None if there is no object with that name."""
        try:
            return self.get(self.path(kind, name))
        except ApiError as refusal:
            if refusal.status != 404:
                raise
            return None

    def all(self, kind: str, **query: str) -> list[Manifest]:
        """Return all objects of `kind` in the namespace, oldest first."""
        return sorted(
            self.get(self.path(kind), **query)["items"], key=lambda item: str(item["metadata"]["creationTimestamp"])
        )

    def require_claim(self) -> None:
        """Raise ClusterError if the claim does not exist, because a pod would then wait forever.

        Do nothing if the user has no right to read claims.
        """
        name = self.cluster.claim
        try:
            claim = self.find("persistentvolumeclaims", name)
        except ApiError:
            return  # this user may not read claims; the launcher's pod will report a missing claim
        if claim is None:
            raise ClusterError(
                f"There is no claim {name} in namespace {self.namespace}; create it with `helm install vasevqa"
                " helm/vasevqa` or `kubectl apply -k k8s`. If you have another claim, set `claim` in the Cluster file"
                " to its name."
            )

    def beside_the_claim(self, manifest: Manifest) -> Manifest:
        """Return the pod's manifest, changed so that the pod runs on the node that has mounted the claim.

        The manifest stays unchanged if several nodes can mount the claim, if no running pod uses the claim, or if the
        user has no right to read claims or pods.
        """
        changed = {**manifest, "spec": dict(manifest["spec"])}
        with contextlib.suppress(ApiError):
            claim = self.find("persistentvolumeclaims", self.cluster.claim)
            node = node_of_claim(self, self.cluster.claim) if claim is not None and one_node_only(claim) else None
            if node is not None:
                fields = [{"key": "metadata.name", "operator": "In", "values": [node]}]
                terms = {"nodeSelectorTerms": [{"matchFields": fields}]}
                changed["spec"]["affinity"] = {
                    "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}
                }
        return changed

    def allowed(self, verb: str, group: str, resource: str, subresource: str = "") -> bool | None:
        """Return whether this user may use `verb` on `resource`; None if the cluster does not report permissions."""
        asked = {
            "namespace": self.namespace,
            "verb": verb,
            "group": group,
            "resource": resource,
            **({"subresource": subresource} if subresource else {}),
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        try:
            return bool(
                self._answer("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {}, body)["status"][
                    "allowed"
                ]
            )
        except ApiError:
            return None

    def open(self, pod: str, command: Sequence[str]) -> Process:
        """Start a process in `pod`.

        Raise ConnectionLost if the connection cannot be made.
        """
        api = client.CoreV1Api(
            client.ApiClient(self._client.configuration)
        )  # a separate client, because a stream replaces the client's transport
        options = {
            "stderr": True,
            "stdin": True,
            "stdout": True,
            "tty": False,
            "_preload_content": False,
            "binary": True,
        }
        try:
            return Process(
                pod,
                stream.stream(
                    api.connect_get_namespaced_pod_exec, pod, self.namespace, command=list(command), **options
                ),
            )
        except client.ApiException as error:
            raise ConnectionLost(f"Could not run a command in pod {pod}: {first_line(error.reason or error)}") from None

    def run_in(
        self, pod: str, command: Sequence[str], out: Callable[[bytes], None], err: Callable[[bytes], None]
    ) -> int:
        """Run `command` in `pod`, and return its exit code.

        The stdout of the command goes to `out`, and its stderr to `err`. Raise ConnectionLost if the connection breaks.
        """
        process = self.open(pod, command)
        try:
            while not process.over:
                process.read(5)
                if block := process.errors():
                    err(block)
                if block := process.taken():
                    out(block)
            return process.exit_code()
        finally:
            process.close()

    @contextlib.contextmanager
    def pod(self, manifest: Manifest, seconds: float = 300) -> Iterator[str]:
        """Create a pod for a `with` block, and yield the pod's name once the pod runs.

        The pod is removed at the end of the block. If the pod does not run within `seconds`, remove it and raise
        ClusterError with the reason.
        """
        name = manifest["metadata"]["name"]
        self.ask("create a pod", self.create, "pods", self.beside_the_claim(manifest))
        try:
            self._await(name, seconds)
            yield name
        finally:
            self._drop(name)

    def run_pod(self, manifest: Manifest, out: Callable[[bytes], None], seconds: float = 300) -> int:
        """Run a pod to its end, pass its output to `out`, and return its exit code.

        Raise ClusterError with the reason if the pod does not start within `seconds`. The pod is always removed.
        """
        name, unseen = manifest["metadata"]["name"], Unseen()
        self.ask("create a pod", self.create, "pods", self.beside_the_claim(manifest))
        try:
            self._await(name, seconds, ("Running", "Succeeded", "Failed"))
            ends = float("inf")
            while True:
                pod = self.ask(
                    "read a pod", self.get, self.path("pods", name)
                )  # checked before the read: if the pod has ended, the read gets all its output
                over, whole = pod["status"].get("phase") in ("Succeeded", "Failed"), True
                try:
                    for lines in self.log(name, manifest["spec"]["containers"][0]["name"], unseen.reconnected()):
                        for text in unseen.fresh(lines):
                            out(text)
                except ClusterUnreachable:
                    whole = False
                if over:
                    ends = min(ends, time.monotonic() + PATIENCE)
                    if whole or time.monotonic() > ends:
                        ended = [
                            (status.get("state") or {}).get("terminated")
                            for status in pod["status"].get("containerStatuses") or []
                        ]
                        return int(ended[0]["exitCode"]) if ended and ended[0] else ClusterError.exit_code
                time.sleep(0.5)
        finally:
            self._drop(name)

    def _drop(self, name: str) -> None:
        with contextlib.suppress(ClusterError):
            self._answer("DELETE", self.path("pods", name), {"gracePeriodSeconds": "1"})

    def _await(self, name: str, seconds: float, phases: Sequence[str] = ("Running",)) -> None:
        end = time.monotonic() + seconds
        while True:
            pod = self.ask("read a pod", self.get, self.path("pods", name))
            phase = pod["status"].get("phase")
            if phase in phases:
                return
            why = trouble(pod)
            if phase in ("Failed", "Succeeded"):
                raise ClusterError(
                    f"The pod {name} ended at once ({why or 'without a message'}); look for the reason in `kubectl"
                    f" logs {name}`."
                )
            if why and (hopeless(pod) or time.monotonic() > end):
                raise ClusterError(f"The pod {name} can't start: {why}.")
            if time.monotonic() > end:
                raise ClusterError(
                    f"The pod {name} didn't start within {seconds:.0f} s; look for the reason in `kubectl describe"
                    f" pod {name}`."
                )
            time.sleep(0.5)
