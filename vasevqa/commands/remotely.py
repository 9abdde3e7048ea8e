"""Questions about runs in a cluster from a machine that doesn't see the volume: a pod that does answers them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vasevqa.backends.launcher_manifest import VOLUME, render_pod
from vasevqa.commands.submitting import cluster_of, needs_claim
from vasevqa.errors import ConfigError

MOST = 100_000  # bytes of a recipe that fit a variable of the pod
WRITE = 'printf %s "$RECIPE" > /tmp/recipe.yaml && exec vasevqa "$@"'


def is_remote(volume: Path, cluster: Path | None, namespace: str | None) -> bool:
    """Is the question for a cluster? If a namespace is named, or a Cluster file where there is no such volume."""
    return namespace is not None or (cluster is not None and not volume.is_dir())


def answer(cluster: Path | None, namespace: str | None, words: Sequence[str], recipe: Path | None = None) -> int:
    """Run `vasevqa WORDS` in a pod with the volume and the launcher's rights, and print what it prints; its exit code.

    `recipe` is there as /tmp/recipe.yaml.
    """
    from vasevqa.backends.kubernetes_access import Access

    access = Access(cluster_of(cluster, namespace))
    needs_claim(access)
    manifest = render_pod(f"vasevqa-look-{os.urandom(4).hex()}", "look", access.cluster, [*words, "--volume", VOLUME])
    manifest["spec"] |= {"serviceAccountName": access.cluster.service_account or "vasevqa", "automountServiceAccountToken": True}
    [container] = manifest["spec"]["containers"]
    if recipe is not None:
        text = recipe.read_text(encoding="utf-8")
        if len(text.encode()) > MOST:
            raise ConfigError(f"{recipe} is larger than {MOST // 1000} kB; plan it where the volume is.")
        container["env"].append({"name": "RECIPE", "value": text})
        container["command"] = ["tini", "--", "sh", "-c", WRITE, "vasevqa"]
    return access.run_pod(manifest, _print)


def _print(block: bytes) -> None:
    sys.stdout.write(block.decode("utf-8", "replace"))
    sys.stdout.flush()


def asked(name: str | None, *options: tuple[str, Any]) -> list[str]:
    """A run's name and options as words; flags that are off and options without a value are left out."""
    words = [name] if name else []
    for option, value in options:
        words += [option] if value is True else [option, str(value)] if value else []
    return words


def plan(given: dict[str, Any]) -> int:
    """`vasevqa plan` on the cluster's volume."""
    words = ["plan", "/tmp/recipe.yaml", "--inputs-from", VOLUME]  # noqa: S108 - inside the pod
    for option, values in (("--set", given["overrides"]), ("--input", given["inputs"]), ("--only", given["only"]), ("--refresh", given["refresh"])):
        words += [word for value in values for word in (option, value)]
    words += asked(None, ("--from", given["first"]), ("--to", given["last"]), ("--json", given["as_json"]))
    return answer(given["cluster"], given["namespace"], words, given["recipe"])
