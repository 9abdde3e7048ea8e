"""A namespace of a cluster as the person at the keyboard (or a pod) may use it: connecting, explaining refusals, commands in pods."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vasevqa.backends.cluster import Cluster
from vasevqa.errors import ClusterError, ConfigError

TIMEOUT = (5, 60)  # seconds to connect, and to wait for an answer
IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
STARTING = ("ContainerCreating", "PodInitializing")


class Access:
    """The API of one namespace. Every refusal is a ClusterError that says what was being done."""

    def __init__(self, cluster: Cluster) -> None:
        from kubernetes import client, config
        from kubernetes.config.config_exception import ConfigException

        self.cluster = cluster
        inside = ""
        try:
            loaded = client.Configuration()
            if cluster.context is None and IN_CLUSTER.is_file():
                config.load_incluster_config(client_configuration=loaded)
                inside = IN_CLUSTER.read_text(encoding="utf-8").strip()
            else:
                config.load_kube_config(context=cluster.context, client_configuration=loaded)
                inside = _namespace_of_context(cluster.context)
        except (ConfigException, OSError) as error:
            raise ClusterError(f"No cluster is configured here ({error}); set KUBECONFIG or give `context` in the Cluster file.") from None
        self.namespace = cluster.namespace or inside or "default"
        self._api = client.ApiClient(loaded)
        self.core, self.batch, self.auth = client.CoreV1Api(self._api), client.BatchV1Api(self._api), client.AuthorizationV1Api(self._api)
        self._loaded = loaded

    def ask(self, doing: str, call: Callable[..., Any], *arguments: Any, missing: Any = ..., **options: Any) -> Any:
        """The answer of `call`; `missing` is what a 404 stands for, if that is no error."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return call(*arguments, **{"_request_timeout": TIMEOUT, **options})
        except ApiException as error:
            if error.status == 404 and missing is not ...:
                return missing
            raise self._refusal(doing, error) from None
        except (HTTPError, OSError) as error:
            raise ClusterError(f"The cluster at {self._loaded.host} doesn't answer ({_short(error)}); check KUBECONFIG and the network.") from None

    def _refusal(self, doing: str, error: Any) -> ClusterError:
        said = said_by(error)
        if error.status == 401:
            return ClusterError(f"Could not {doing}: the cluster doesn't know you (401); log in again.")
        if error.status == 403 and "quota" not in said:
            return ClusterError(f"Could not {doing}: you may not, in namespace {self.namespace} ({said}); ask for the role that the chart calls `-user`.")
        refused = ClusterError(f"Could not {doing} in namespace {self.namespace}: {said}")
        refused.__cause__ = error
        return refused

    def plain(self, found: Any) -> dict[str, Any]:
        """An answer of the client as the JSON that the server sent."""
        sent: dict[str, Any] = self._api.sanitize_for_serialization(found)
        return sent

    def allowed(self, verb: str, group: str, resource: str, subresource: str = "") -> bool | None:
        """May I? None where the cluster doesn't say."""
        asked = {"namespace": self.namespace, "verb": verb, "group": group, "resource": resource, **({"subresource": subresource} if subresource else {})}
        return self.answer({"resourceAttributes": asked})

    def answer(self, spec: Mapping[str, Any]) -> bool | None:
        """What a SelfSubjectAccessReview with `spec` says."""
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": dict(spec)}
        try:
            return bool(self.ask("ask for my rights", self.auth.create_self_subject_access_review, body).status.allowed)
        except ClusterError:
            return None

    def open(self, pod: str, command: Sequence[str]) -> Process:
        """Start a process in `pod`; Broken if the connection can't be made."""
        from kubernetes import client, stream
        from kubernetes.client.exceptions import ApiException

        api = client.CoreV1Api(client.ApiClient(self._loaded))  # its own client: a stream takes the client's transport over
        options = {"stderr": True, "stdin": True, "stdout": True, "tty": False, "_preload_content": False, "binary": True}
        try:
            return Process(pod, stream.stream(api.connect_get_namespaced_pod_exec, pod, self.namespace, command=list(command), **options))
        except ApiException as error:
            raise Broken(f"Could not run a command in pod {pod}: {_short(error.reason or error)}") from None

    def run_in(self, pod: str, command: Sequence[str], out: Callable[[bytes], None], err: Callable[[bytes], None]) -> int:
        """Run `command` in `pod` and pass on what it prints; returns its exit code. ClusterError if the connection breaks."""
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
    def pod(self, manifest: Mapping[str, Any], seconds: float = 300) -> Iterator[str]:
        """A pod for as long as the block lasts; its name, once it runs. ClusterError says why it doesn't."""
        name = manifest["metadata"]["name"]
        self.ask("create a pod", self.core.create_namespaced_pod, self.namespace, dict(manifest))
        try:
            self._await(name, seconds)
            yield name
        finally:
            with contextlib.suppress(ClusterError):
                self.ask("remove a pod", self.core.delete_namespaced_pod, name, self.namespace, grace_period_seconds=1, missing=None)

    def _await(self, name: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            found = self.plain(self.ask("read a pod", self.core.read_namespaced_pod, name, self.namespace))
            if found["status"].get("phase") == "Running":
                return
            why = trouble(found)
            if found["status"].get("phase") in ("Failed", "Succeeded"):
                raise ClusterError(f"The pod {name} ended at once ({why or 'without a word'}); `kubectl logs {name}` may say why.")
            if why and (hopeless(found) or time.monotonic() > end):
                raise ClusterError(f"The pod {name} can't start: {why}.")
            if time.monotonic() > end:
                raise ClusterError(f"The pod {name} didn't start within {seconds:.0f} s; `kubectl describe pod {name}` may say why.")
            time.sleep(0.5)


class Broken(ClusterError):
    """A connection to a pod was lost: another one may go on."""

    moved = False  # something was done on it first


class _Forgotten:
    def write(self, block: bytes) -> None:
        """Keep nothing."""


class Process:
    """A process in a pod, by its streams, in bytes."""

    def __init__(self, pod: str, socket: Any) -> None:
        self.pod, self._socket = pod, socket
        socket._all = _Forgotten()  # the client would keep a copy of all that ever came

    @property
    def over(self) -> bool:
        """True once the connection has ended and everything that came was taken."""
        return not self._socket.is_open()

    def write(self, block: bytes) -> None:
        """Send to its stdin."""
        with self._watched():
            self._socket.write_stdin(block)

    def read(self, seconds: float) -> None:
        """Wait up to `seconds` for something to arrive."""
        with self._watched():
            self._socket.update(timeout=seconds)

    def taken(self) -> bytes:
        """What has arrived on stdout since the last call."""
        with self._watched():
            return bytes(self._socket.read_stdout(timeout=0))

    def errors(self) -> bytes:
        """What has arrived on stderr since the last call."""
        with self._watched():
            return bytes(self._socket.read_stderr(timeout=0))

    def exit_code(self) -> int:
        """How it ended; Broken if the connection was lost before that was known."""
        try:
            return int(self._socket.returncode)
        except (TypeError, KeyError, ValueError, IndexError, AttributeError):
            raise Broken(f"The connection to pod {self.pod} was lost; try again.") from None

    def close(self) -> None:
        """End the connection, and with it the process' input."""
        with contextlib.suppress(Exception):
            self._socket.close(timeout=1)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        from websocket import WebSocketException

        try:
            yield
        except (WebSocketException, OSError, ValueError) as error:
            raise Broken(f"The connection to pod {self.pod} broke ({_short(error)}); try again.") from None


def trouble(pod: Mapping[str, Any]) -> str:
    """Why a pod doesn't run, in the cluster's words and with what to do; empty if nothing is wrong with it."""
    status = pod.get("status", {})
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"):
            return f"the image {container['image']} can't be pulled ({waiting.get('message') or waiting['reason']}); check `registry`, `tag` and `pull_secrets`"
        if waiting.get("reason") and waiting["reason"] not in STARTING:
            return f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"it has no place ({condition.get('message', condition.get('reason', ''))})"
    return str(status.get("message") or "")


def hopeless(pod: Mapping[str, Any]) -> bool:
    """True if waiting won't help: an image that can't be pulled, a setting that is missing."""
    for container in pod.get("status", {}).get("containerStatuses") or []:
        waiting = ((container.get("state") or {}).get("waiting") or {}).get("reason", "")
        if waiting in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"):
            return True
    return False


def said_by(error: Any) -> str:
    """The server's own sentence in an ApiException."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason or error)


def _short(error: object) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _namespace_of_context(context: str | None) -> str:
    from kubernetes import config
    from kubernetes.config.config_exception import ConfigException

    try:
        known, active = config.list_kube_config_contexts()
    except ConfigException as error:
        raise ConfigError(f"The kubeconfig can't be read ({error}).") from None
    found = next((item for item in known if item["name"] == context), active)
    return str(found["context"].get("namespace") or "")
