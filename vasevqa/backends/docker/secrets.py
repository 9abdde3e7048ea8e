"""Hand confidential variables to a container in a file, because `docker inspect` shows a container's environment.

The file is on the volume, which every engine mounts. Only the user who starts the launcher can read the file. The stage
reads the file and deletes it at once.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from vasevqa.backends.cluster import Cluster
from vasevqa.backends.environment import PASSED_ON, reaches_hub
from vasevqa.confidential import HUB_TOKENS, SECRET_FILE, is_confidential

FOLDER = ".secrets"  # on the volume; the folder is empty unless a container is being started


class Secrets:
    """The confidential variables of this process's environment that stages need."""

    def __init__(self, volume: Path, cluster: Cluster) -> None:
        self._folder, self._cluster = volume.absolute() / FOLDER, cluster

    def of(self, hub: bool) -> dict[str, str]:
        """Return the confidential variables for a container. The tokens of hubs are included only if `hub` is True.

        The Cluster file's setting `secrets` names some of the variables. Docker has no Secrets, so the values of these
        variables come from this process's environment too.
        """
        named = (*HUB_TOKENS, *self._cluster.secrets)
        given = {name: os.environ.get(name, "") for name in (*PASSED_ON, *named)}
        return {
            name: value
            for name, value in given.items()
            if value and (name in named or is_confidential(name, value)) and (hub or name not in HUB_TOKENS)
        }

    def path(self, container: str) -> Path:
        """Return the path of the file for a container. The path is the same in the container and on this machine."""
        return self._folder / f"{container}.json"

    def hand_over(self, container: Any) -> None:
        """Write the file for a container that is not started yet, if the container needs one."""
        environment = dict(line.partition("=")[::2] for line in container.attrs["Config"].get("Env") or ())
        if SECRET_FILE not in environment:
            return
        path = self.path(container.name)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        temporary = path.with_suffix(f".{os.urandom(4).hex()}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as stream:
            json.dump(self.of(reaches_hub(environment)), stream)
        temporary.replace(path)

    def forget(self, container: str) -> None:
        """Delete the file for a container that no longer exists. Usually the stage has already deleted it."""
        self.path(container).unlink(missing_ok=True)
