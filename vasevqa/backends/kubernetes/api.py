"""Call the API server of a cluster.

Objects are plain mappings. If a call raises ClusterUnreachable, the same call may succeed later. If a call raises
ApiError, the same call would fail again.

The Python package `kubernetes` finds the cluster and authenticates the requests. Its classes for pods, Jobs and other
objects are not used, because the rest of the backend handles plain mappings.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config

from vasevqa.backends.kubernetes.pod_template import Manifest
from vasevqa.errors import ClusterError, ClusterUnreachable

CONNECT, READ = 5.0, 30.0  # seconds
SILENCE = 300.0  # seconds without output after which the log is requested again, because the connection may be dead
WATCHED = 240  # seconds after which the server ends a watch; a new watch then continues from the same version
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_NETWORK = (urllib3.exceptions.HTTPError, OSError)


class ApiError(ClusterError):
    """The server refused a request; `status` is the HTTP status code."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """Access to the objects in one namespace of a cluster.

    If `namespace` is None, the kubeconfig's context gives the namespace. In a pod without a kubeconfig, the pod's own
    namespace is used.

    The constructor raises ClusterError if no cluster is configured.
    """

    def __init__(self, context: str | None, namespace: str | None) -> None:
        settings = client.Configuration()
        given = settings.proxy, settings.no_proxy
        try:
            if context is None and not os.environ.get("KUBECONFIG") and "KUBERNETES_SERVICE_HOST" in os.environ:
                config.load_incluster_config(client_configuration=settings)
                own = (SERVICE_ACCOUNT / "namespace").read_text().strip()
            else:
                config.load_kube_config(context=context, client_configuration=settings)
                contexts, active = config.list_kube_config_contexts()
                chosen = next((entry for entry in contexts if entry["name"] == context), active)
                own = chosen["context"].get("namespace", "default")
        except (config.ConfigException, OSError, KeyError) as error:
            raise ClusterError(
                f"No cluster is configured ({str(error).rstrip('.')}); set KUBECONFIG, name a `context` in the Cluster"
                " file, or use another --backend."
            ) from None
        settings.proxy, settings.no_proxy = settings.proxy or given[0], settings.no_proxy or given[1]
        settings.retries = False  # this class decides about retries, not urllib3
        settings.keep_alive = True  # ends a watch whose connection is dead
        settings.connection_pool_maxsize = 32
        self.namespace = namespace or own
        self.host = settings.host
        self._client = client.ApiClient(settings)

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    def path(self, kind: str, name: str = "") -> str:
        """Return the URL path of all objects of `kind` in the namespace, or of the one object called `name`."""
        group = "apis/batch/v1" if kind == "jobs" else "api/v1"
        return f"/{group}/namespaces/{self.namespace}/{kind}{f'/{name}' if name else ''}"

    def get(self, path: str, **query: str) -> Manifest:
        """Return the object or list at `path`.

        Raise ApiError if the server refuses the request (status 404: there is no such object). Raise ClusterUnreachable
        if the server does not answer.
        """
        return self._answer("GET", path, query)

    def create(self, kind: str, manifest: Manifest) -> Manifest:
        """Create an object and return it as the server stored it.

        Raise ApiError if the server refuses the request (status 409: an object with this name exists). Raise
        ClusterUnreachable if the server does not answer.
        """
        return self._answer("POST", self.path(kind), {}, manifest)

    def delete(self, kind: str, name: str) -> bool:
        """Delete an object; return False if the object does not exist.

        The cluster also deletes all objects that the deleted object owns.
        """
        try:
            self._answer("DELETE", self.path(kind, name), {}, {"propagationPolicy": "Background"})
        except ApiError as refusal:
            if refusal.status != 404:
                raise
            return False
        return True

    def watch(self, path: str, version: str, **query: str) -> Iterator[Manifest]:
        """Yield the changes at `path` since the resource version `version`, until the server ends the watch.

        Raise ClusterUnreachable if the connection breaks.
        """
        wanted = {
            **query,
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCHED),
        }
        for lines in _lines(self._open("GET", path, wanted, read=WATCHED + READ)):
            for line in lines:
                try:
                    yield json.loads(line)
                except ValueError:
                    raise ClusterUnreachable("The cluster's answer is incomplete.") from None

    def log(self, pod: str, container: str, since: str = "") -> Iterator[list[bytes]]:
        """Follow a container's output, and yield new lines as soon as they arrive. Each line begins with a timestamp.

        `since` is the timestamp of the first line to return, in whole seconds. If `since` is empty, the output is read
        from its beginning.
        """
        query = {
            "container": container,
            "follow": "true",
            "timestamps": "true",
            **({"sinceTime": since} if since else {}),
        }
        yield from _lines(self._open("GET", f"{self.path('pods', pod)}/log", query, read=SILENCE))

    def _answer(self, method: str, path: str, query: Mapping[str, str], body: Manifest | None = None) -> Manifest:
        response = self._open(method, path, query, body)
        try:
            answer: Manifest = json.loads(response.read())
        except (*_NETWORK, ValueError) as error:
            raise ClusterUnreachable(
                f"The answer of the cluster at {self.host} is incomplete ({type(error).__name__})."
            ) from None
        finally:
            response.release_conn()
        return answer

    def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Manifest | None = None,
        read: float | None = READ,
    ) -> Any:
        headers = {"Accept": "application/json, */*", "Content-Type": "application/json"}
        try:
            request = self._client.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            response = self._client.call_api(*request, _request_timeout=(CONNECT, read)).response
            if response.status < 400:
                return response
            text = response.read()
        except client.ApiException as error:  # TLS: a wrong certificate, or a handshake with a server that stops
            if "CERTIFICATE" not in str(error.reason).upper():
                raise ClusterUnreachable(
                    f"The cluster at {self.host} doesn't answer: the TLS connection failed."
                ) from None
            raise ClusterError(
                f"The cluster at {self.host} has no valid certificate ({' '.join(str(error.reason).split())});"
                " check your kubeconfig."
            ) from None
        except _NETWORK as error:
            raise ClusterUnreachable(f"The cluster at {self.host} doesn't answer ({_why(error)}).") from None
        raise _refusal(response.status, text, self.host)


def _lines(response: Any) -> Iterator[list[bytes]]:
    """Yield the complete lines of each block that arrives, and at the end the text after the last line break."""
    rest = b""
    try:
        for block in response.stream(1 << 16, decode_content=False):
            *lines, rest = (rest + block).split(b"\n")
            if lines:
                yield [line + b"\n" for line in lines]
    except _NETWORK as error:
        raise ClusterUnreachable(f"The cluster's answer is incomplete ({type(error).__name__}).") from None
    finally:
        response.close()
        response.release_conn()
    if rest:
        yield [rest]


def _why(error: Exception) -> str:
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "no connection"
    return "no answer in time" if isinstance(error, urllib3.exceptions.TimeoutError) else type(error).__name__


def _refusal(status: int, text: bytes, host: str) -> ClusterError:
    try:
        message = str(json.loads(text).get("message", ""))
    except (ValueError, AttributeError):
        message = text.decode("utf-8", "replace")[:200].strip()
    if status in (429, 500, 502, 503, 504):  # a server that starts, stops or has too much load
        return ClusterUnreachable(
            f"The cluster at {host} doesn't answer properly ({status}: {message or 'no message'})."
        )
    if status == 401:
        return ApiError(
            f"The cluster at {host} refuses your login (401); renew your login and run the same command again.",
            status,
        )
    return ApiError(message or f"HTTP {status}", status)
