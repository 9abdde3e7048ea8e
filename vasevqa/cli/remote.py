"""Run a command in a pod that mounts the volume, if this machine has no access to the volume."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vasevqa.backends.cluster import cluster_of
from vasevqa.backends.kubernetes.launcher_job import VOLUME, render_pod
from vasevqa.errors import ConfigError
from vasevqa.pipeline.recipe import KIND
from vasevqa.yaml_files import read_text

MOST = 100_000  # bytes; a recipe up to this size fits into an environment variable of the pod
WRITE = 'printf %s "$RECIPE" > /tmp/recipe.yaml && exec vasevqa "$@"'


def answer(cluster: Path | None, namespace: str | None, words: Sequence[str], recipe: Path | None = None) -> int:
    """Run `vasevqa` with the arguments `words` in a pod that mounts the volume and has the launcher's rights.

    Print the command's output and return its exit code. In the pod, the file `recipe` has the path /tmp/recipe.yaml.

    Raise ClusterError if the claim is missing or the pod can't start. Raise ConfigError if the recipe is larger than
    `MOST` bytes.
    """
    from vasevqa.backends.kubernetes.session import Session

    access = Session(cluster_of(cluster, namespace))
    access.require_claim()
    manifest = render_pod(f"vasevqa-look-{os.urandom(4).hex()}", "look", access.cluster, [*words, "--volume", VOLUME])
    manifest["spec"] |= {
        "serviceAccountName": access.cluster.service_account or "vasevqa",
        "automountServiceAccountToken": True,
    }
    [container] = manifest["spec"]["containers"]
    if recipe is not None:
        text = read_text(recipe, KIND)
        if len(text.encode()) > MOST:
            raise ConfigError(
                f"{recipe} is larger than {MOST // 1000} kB; run `vasevqa plan` on a machine that mounts the volume."
            )
        container["env"].append({"name": "RECIPE", "value": text})
        container["command"] = ["tini", "--", "sh", "-c", WRITE, "vasevqa"]
    return access.run_pod(manifest, _print)


def _print(block: bytes) -> None:
    sys.stdout.write(block.decode("utf-8", "replace"))
    sys.stdout.flush()
