"""Connects to the Docker engine and translates its errors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import docker
import requests
from docker.errors import DockerException

from vasevqa.backends.cluster import Cluster
from vasevqa.errors import ClusterError, ClusterUnreachable
from vasevqa.text import first_line

AWAY = (DockerException, requests.exceptions.RequestException, OSError)
TIMEOUT = 60.0


def built_here(cluster: Cluster, reference: str) -> bool:
    """True if `reference` is one of our images and no registry is set, so that it can't be pulled."""
    return not cluster.registry and reference.split("/", maxsplit=1)[0] == "vasevqa"


def connect() -> Any:
    """Return a client of the engine that DOCKER_HOST names; ClusterError if it doesn't answer or can't be used."""
    where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    try:
        client = docker.from_env(timeout=int(TIMEOUT))
        client.ping()
        return client
    except AWAY as error:
        text = repr(error)
        if "Permission" in text:
            raise ClusterError(
                f"The Docker engine at {where} can't be used by this user; join its group (`sudo usermod -aG docker"
                " $USER`, then log in)."
            ) from None
        raise ClusterError(
            f"No Docker engine answers at {where}; start it, set DOCKER_HOST, or use --backend local."
        ) from None


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise the engine's errors as ClusterError, or as ClusterUnreachable if a retry may help."""
    try:
        yield
    except DockerException as error:  # from the engine or its client: a retry would change nothing
        raise ClusterError(f"The Docker engine could not {doing}: {said(error)}.") from None
    except AWAY as error:
        if isinstance(error, OSError) and not isinstance(
            error, (ConnectionError, requests.exceptions.RequestException)
        ):
            raise  # an error of the volume, not of the engine
        raise ClusterUnreachable(
            f"The Docker engine could not {doing}: it doesn't answer ({type(error).__name__}); is it running?"
        ) from None


def said(error: Exception) -> str:
    """Return the engine's message for an error, as part of a sentence."""
    return first_line(getattr(error, "explanation", None) or error, 300)
