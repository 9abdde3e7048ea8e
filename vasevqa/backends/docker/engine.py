"""Connect to the Docker engine, and turn its errors into VaseErrors."""

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
    """Return True if `reference` is this project's image and no registry is set. Such an image can't be pulled."""
    return not cluster.registry and reference.split("/", maxsplit=1)[0] == "vasevqa"


def connect() -> Any:
    """Return a client of the engine that DOCKER_HOST names.

    Raise ClusterError if the engine doesn't answer, or if this user has no permission to use the engine.
    """
    where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    try:
        client = docker.from_env(timeout=int(TIMEOUT))
        client.ping()
        return client
    except AWAY as error:
        text = repr(error)
        if "Permission" in text:
            raise ClusterError(
                f"You may not use the Docker engine at {where}; join the group `docker` (`sudo usermod -aG docker"
                " $USER`, then log in again)."
            ) from None
        raise ClusterError(
            f"No Docker engine answers at {where}; start the engine, set DOCKER_HOST, or use `--backend local`."
        ) from None


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn errors of the Docker engine in a `with` block into VaseErrors.

    `doing` names the action in the error message. Raise ClusterUnreachable if a retry may help, and ClusterError
    otherwise.
    """
    try:
        yield
    except DockerException as error:  # an error of the engine or its client: a retry would change nothing
        raise ClusterError(f"The Docker engine could not {doing}: {said(error)}.") from None
    except AWAY as error:
        if isinstance(error, OSError) and not isinstance(
            error, (ConnectionError, requests.exceptions.RequestException)
        ):
            raise  # an error of the volume, not of the engine
        raise ClusterUnreachable(
            f"The Docker engine could not {doing}: the engine doesn't answer ({type(error).__name__}); check that"
            " it is running."
        ) from None


def said(error: Exception) -> str:
    """Return the first line of the engine's message for an error, for use within a sentence."""
    return first_line(getattr(error, "explanation", None) or error, 300)
