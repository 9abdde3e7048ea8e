"""A new namespace on the cluster of KUBECONFIG. This machine sees the volume at the path where pods mount it."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests import containers
from tests.pipeline.kit import STEPS, Kit, wait_for
from vasevqa.artifacts.volume import Volume
from vasevqa.backends.cluster import Cluster, parse_cluster
from vasevqa.backends.kubernetes.backend import KubernetesBackend

Object = dict[str, Any]
SESSION = f"run-{os.urandom(4).hex()}"  # several test runs may share a cluster


def kubectl(*words: str, given: Any = None, check: bool = True) -> str:
    """Run kubectl as the user who runs the tests. The objects in `given` are its standard input."""
    text = None if given is None else "\n---\n".join(json.dumps(thing) for thing in given)
    done = subprocess.run(["kubectl", *words], input=text, capture_output=True, text=True)
    assert not check or done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
    return done.stdout


def apply(given: Sequence[Object]) -> None:
    """Create or change objects as the user who runs the tests."""
    kubectl("apply", "-f", "-", given=given)


def objects(kind: str, namespace: str, *words: str) -> list[Object]:
    found: list[Object] = json.loads(kubectl("get", kind, "-n", namespace, "-o", "json", *words))["items"]
    return found


def load(image: str) -> None:
    """Load an image of this machine's engine into the cluster, with the command in VASEVQA_E2E_LOAD."""
    command = os.environ.get("VASEVQA_E2E_LOAD")
    if command:
        subprocess.run([*command.split(), image], check=True, capture_output=True)


def copying_image() -> str:
    """Build the image of the copying stage from the present code, and load it into the cluster."""
    given = os.environ.get("VASEVQA_E2E_IMAGE")
    if given:
        return given
    image = containers.copying_image()
    load(image)
    return image


class Namespace:
    """A namespace with a claim on `volume`, and an account that has only the launcher's rights."""

    def __init__(self, volume: Path, claimed: Path | None = None, access: str = "ReadWriteMany") -> None:
        self.name = f"vase-e2e-{os.urandom(4).hex()}"
        self.volume = volume
        volume.mkdir(parents=True, exist_ok=True)
        volume.chmod(0o777)
        size = {"storage": "1Gi"}
        claim = {"name": "vasevqa", "namespace": self.name}
        role = yaml.safe_load((Path(__file__).parent / "role.yaml").read_text())
        role["metadata"]["namespace"] = self.name
        apply(
            [
                {
                    "apiVersion": "v1",
                    "kind": "Namespace",
                    "metadata": {"name": self.name, "labels": {"vasevqa-e2e": SESSION}},
                },
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolume",
                    "metadata": {"name": self.name, "labels": {"vasevqa-e2e": SESSION}},
                    "spec": {
                        "capacity": size,
                        "accessModes": [access],
                        "storageClassName": "",
                        "persistentVolumeReclaimPolicy": "Retain",
                        "hostPath": {"path": str(claimed or volume)},
                        "claimRef": claim,
                    },
                },
            ]
        )
        apply(
            [
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "metadata": claim,
                    "spec": {
                        "accessModes": [access],
                        "storageClassName": "",
                        "volumeName": self.name,
                        "resources": {"requests": size},
                    },
                },
                {
                    "apiVersion": "v1",
                    "kind": "ServiceAccount",
                    "metadata": {"name": "launcher", "namespace": self.name},
                },
                role,
                {
                    "apiVersion": "rbac.authorization.k8s.io/v1",
                    "kind": "RoleBinding",
                    "metadata": {"name": "launcher", "namespace": self.name},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "launcher"},
                    "subjects": [{"kind": "ServiceAccount", "name": "launcher", "namespace": self.name}],
                },
            ]
        )
        self.kubeconfig = self._kubeconfig()
        wait_for(
            lambda: kubectl("get", "serviceaccount", "default", "-n", self.name, "--ignore-not-found", "-o", "name"),
            "the default account",
        )
        wait_for(self._bound, "the claim to be bound")

    def _bound(self) -> bool:
        # Any change makes the controller check again at once. Otherwise it checks every 15 seconds.
        kubectl("annotate", "pvc", "vasevqa", "-n", self.name, "--overwrite", f"e2e={time.monotonic()}")
        return kubectl("get", "pvc", "vasevqa", "-n", self.name, "-o", "jsonpath={.status.phase}") == "Bound"

    def _kubeconfig(self) -> Path:
        mine = yaml.safe_load(kubectl("config", "view", "--minify", "--raw", "--flatten", "-o", "yaml"))
        token = kubectl("create", "token", "launcher", "-n", self.name).strip()
        path = self.volume.parent / f"{self.name}.kubeconfig"
        user = [{"name": "launcher", "user": {"token": token}}]
        context = [
            {
                "name": "e2e",
                "context": {"cluster": mine["clusters"][0]["name"], "user": "launcher", "namespace": self.name},
            }
        ]
        path.write_text(yaml.safe_dump({**mine, "users": user, "contexts": context, "current-context": "e2e"}))
        path.chmod(0o600)
        return path

    def remove(self) -> None:
        """Begin to remove the namespace. `all_removed` tells when the removal has finished."""
        kubectl("delete", "namespace", self.name, "--wait=false", "--ignore-not-found")
        kubectl("delete", "pv", self.name, "--wait=false", "--ignore-not-found")


def all_removed() -> bool:
    """Return True if nothing of these namespaces is left."""
    return not kubectl("get", "namespaces,pv", "-l", f"vasevqa-e2e={SESSION}", "-o", "name").strip()


@dataclass
class ClusterKit(Kit):
    """The kit of tests/pipeline, with its recipe, words and control files on a volume of the cluster. Commands use the
    Kubernetes backend.
    """

    namespace: Namespace = None  # type: ignore[assignment]
    image: str = ""
    settings: Object = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.root.chmod(0o777)
        self.control.chmod(0o777)
        self.set_cluster()
        self._backend: KubernetesBackend | None = None

    def set_cluster(self, **settings: Any) -> None:
        """Write the Cluster file."""
        self.settings = {"claim": "vasevqa", "images": {"copying": self.image}, **settings}
        self.cluster_file.write_text(json.dumps(self.settings))

    @property
    def cluster_file(self) -> Path:
        return self.root / "cluster.yaml"

    @property
    def cluster(self) -> Cluster:
        return parse_cluster(self.settings, "the test")

    @property
    def volume(self) -> Volume:
        return Volume(self.namespace.volume)

    @property
    def backend(self) -> KubernetesBackend:  # type: ignore[override]
        """Return a backend in this process, with the rights of the tests."""
        return KubernetesBackend(self.volume.root, self.cluster.model_copy(update={"namespace": self.namespace.name}))

    def command(
        self, *words: str | Path, env: dict[str, str] | None = None, before: Callable[[], None] | None = None
    ) -> subprocess.Popen[str]:
        own = {
            "KUBECONFIG": str(self.namespace.kubeconfig),
            "VASEVQA_BACKEND": "kubernetes",
            "VASEVQA_CLUSTER": str(self.cluster_file),
        }

        def prepare() -> None:
            os.umask(0)  # pods with another uid write beside the launcher's files
            if before is not None:
                before()

        return super().command(*words, env={**own, **(env or {})}, before=prepare)

    def jobs(self) -> list[Object]:
        return objects("jobs", self.namespace.name)

    def pods(self, *words: str) -> list[Object]:
        return objects("pods", self.namespace.name, *words)

    def configmaps(self) -> list[Object]:
        return objects("configmaps", self.namespace.name, "-l", "app.kubernetes.io/part-of=vasevqa")

    def wait_for_pod(self, step: str) -> str:
        """Wait for a pod of `step`, and return the name of the newest pod."""
        found: list[str] = []

        def look() -> bool:
            found[:] = [
                pod["metadata"]["name"]
                for pod in self.pods("-l", f"vasevqa/step={step}", "--sort-by=.metadata.creationTimestamp")
            ]
            return bool(found)

        wait_for(look, f"a pod of {step}")
        return found[-1]

    def wait_until_held(self, step: str, where: str = "hold") -> None:
        """Wait longer than for a process, because a pod must first be scheduled and started."""
        wait_for((self.control / f"{step}.{where}.reached").exists, f"{step} to reach {where}", 120)

    def wait_until_running(self, step: str) -> None:
        """Wait until the cluster also reports the pod as running. If a pod is deleted earlier, its kubelet may be
        slow.
        """
        words = ("-l", f"vasevqa/step={step}")
        wait_for(
            lambda: any(pod["status"]["phase"] == "Running" for pod in self.pods(*words)),
            f"the pod of {step} to be reported as running",
        )

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()

    def assert_tidy(self) -> None:
        for step in STEPS:
            folder = self.volume.artifacts / step
            left = (
                [entry.name for entry in folder.iterdir() if entry.suffix not in ("", ".lock")]
                if folder.is_dir()
                else []
            )
            assert not left, left
        assert self.jobs() == []
        wait_for(lambda: self.pods() == [], "the removal of the pods of removed Jobs")

    def write_recipe(self, **steps: dict[str, Any]) -> None:
        """Write the recipe. Its steps request little, so that several steps fit on a small node."""
        super().write_recipe(
            **{
                name: {**steps.get(name, {}), "resources": {"cpus": 0.1, **steps.get(name, {}).get("resources", {})}}
                for name in STEPS
            }
        )

    def assert_nothing_runs(self) -> None:
        assert self.jobs() == []
        assert [
            pod["metadata"]["name"] for pod in self.pods() if pod["status"]["phase"] in ("Pending", "Running")
        ] == []

    def told(self) -> list[Object]:
        """Return the events of all runs."""
        return [event for run in self.runs() for event in run.events.read()]


def wait_for_line(process: subprocess.Popen[str], words: str, seconds: float = 60) -> tuple[str, float]:
    """Return the first line of output that contains `words`, and the seconds until this line."""
    began = time.monotonic()
    assert process.stdout is not None
    seen = []
    with timer(seconds, process.kill):  # a process without output must not block the test
        for line in process.stdout:
            seen.append(line)
            if words in line:
                return line, time.monotonic() - began
    raise AssertionError(
        f"'{words}' was not printed within {time.monotonic() - began:.0f}"
        f" s:\n{''.join(seen)}{process.stderr.read() if process.stderr else ''}"
    )


@contextmanager
def timer(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Call `act` if the block lasts longer than `seconds`."""
    clock = threading.Timer(seconds, act)
    clock.daemon = True
    clock.start()
    try:
        yield
    finally:
        clock.cancel()


@contextmanager
def cluster_kit(folder: Path, image: str, **given: Any) -> Iterator[ClusterKit]:
    """Yield a kit in a new namespace, and remove the namespace at the end."""
    namespace = Namespace(folder / "volume", **given)
    kit = ClusterKit(folder / "volume/kit", namespace=namespace, image=image)
    try:
        yield kit
    finally:
        kit.close()
        namespace.remove()
