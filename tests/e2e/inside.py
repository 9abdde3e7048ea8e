"""Launchers inside the cluster, in a new namespace. The chart or `vasevqa submit` starts them, with the pipeline of
tests/pipeline/stages.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline.kit import ROOT
from vasevqa.backends.cluster import Cluster

CHART = ROOT / "helm/vasevqa"
ENTRIES = {"launcher": "tests.e2e.drive", "copying": "tests.pipeline.stages.copying"}
COPIED = ("vasevqa", "jobs", "tests/__init__.py", "tests/pipeline", "tests/e2e")


def command(*words: str | Path, given: str | None = None, check: bool = True, env: dict[str, str] | None = None) -> str:
    """Run a command, and return its standard output."""
    done = subprocess.run(
        [str(word) for word in words],
        input=given,
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        cwd=ROOT,
    )
    assert not check or done.returncode == 0, f"{' '.join(map(str, words))}: {done.stdout}{done.stderr}"
    return done.stdout


def until(condition: Callable[[], Any], what: str, seconds: float = 120) -> None:
    """Wait until `condition` holds. The checks are rare, because each check starts a process."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}, without success"
        time.sleep(1)


def images() -> dict[str, str]:
    """Build the launcher's image with the present code and the copying pipeline, load it into the cluster, and return
    stage -> image.
    """
    base = Cluster().image("launcher")
    with tempfile.TemporaryDirectory() as folder:
        context, digest = (
            Path(folder),
            hashlib.sha256(command("docker", "image", "inspect", "-f", "{{.Id}}", base).encode()),
        )
        for name in COPIED:
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            (
                shutil.copytree(ROOT / name, context / name, ignore=ignored)
                if (ROOT / name).is_dir()
                else shutil.copy(ROOT / name, context / name)
            )
        for path in sorted(context.rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(context)}\0".encode() + path.read_bytes())
        made = {stage: f"vasevqa-inside/{stage}:{digest.hexdigest()[:12]}" for stage in ENTRIES}
        for stage, module in ENTRIES.items():
            if subprocess.run(["docker", "image", "inspect", made[stage]], capture_output=True).returncode == 0:
                continue
            (context / "Dockerfile").write_text(
                f"FROM {base}\nUSER 0\nRUN rm -r /app/vasevqa /app/jobs\nCOPY . /app/\nRUN chmod -R a+rX /app "
                '&& printf \'#!/opt/venv/bin/python\\nfrom runpy import run_module\\nrun_module("tests.e2e.drive",'
                ' run_name="__main__")\\n\' > /app/bin/vasevqa\nUSER 1000:1000\n'
                f'ENTRYPOINT ["tini", "--", "python", "-m", "{module}"]\n'
            )
            command("docker", "build", "-q", "-t", made[stage], context)
            if os.environ.get("VASEVQA_E2E_LOAD"):
                command(*os.environ["VASEVQA_E2E_LOAD"].split(), made[stage])
    return made


class Site:
    """A namespace with a volume for the claim `claim`. The installation of the chart creates the claim."""

    def __init__(self, folder: Path, made: dict[str, str]) -> None:
        self.namespace, self.volume, self.images = f"vase-e2e-{os.urandom(4).hex()}", folder, made
        self.folder = folder.parent
        for path in (folder, folder / "words", folder / "control"):
            path.mkdir()
            path.chmod(0o777)
        for word in ("alpha", "beta"):
            (folder / "words" / f"{word}.txt").write_text(word)
        self.kubectl(
            "apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": self._named()})
        )

    def _named(self) -> dict[str, Any]:
        return {"name": self.namespace, "labels": {"vasevqa-e2e": "true"}}

    def add_volume(self, claim: str, access: str = "ReadWriteMany") -> None:
        """Create the volume for the claim `claim`."""
        spec = {
            "capacity": {"storage": "1Ti"},
            "accessModes": [access],
            "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(self.volume)},
            "claimRef": {"name": claim, "namespace": self.namespace},
        }
        volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": self._named(), "spec": spec}
        self.kubectl("apply", "-f", "-", given=json.dumps(volume))

    def kubectl(self, *words: str | Path, **given: Any) -> str:
        return command("kubectl", "-n", self.namespace, *words, **given)

    def all(self, kinds: str, *words: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kinds, "-o", "json", *words))["items"]
        return found

    def names(self, kinds: str, *words: str) -> set[str]:
        return {item["metadata"]["name"] for item in self.all(kinds, *words)}

    def helm(self, *words: str | Path, **given: Any) -> str:
        return command("helm", *words[:1], "-n", self.namespace, *words[1:], **given)

    def install(self, verb: str, *words: str | Path) -> str:
        """Run `helm install` or `helm upgrade` for the release `it`, whose claim is it-vasevqa."""
        chosen = [word for stage, image in self.images.items() for word in ("--set", f"images.{stage}={image}")]
        return self.helm(verb, "it", CHART, "--set", "volume.storageClass=", *chosen, *words)

    def recipe(self, name: str = "words", **steps: dict[str, Any]) -> Path:
        """Write a recipe of the copying pipeline with paths on the volume."""
        settings = {
            step: {"control": "/data/control", "resources": {"cpus": 0.1}, **steps.get(step, {})}
            for step in ("first", "left", "right", "last")
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps({"name": name, "inputs": {"words": "words"}, "steps": settings}))
        return path

    def cluster_file(self, **settings: Any) -> Path:
        path = self.folder / "cluster.yaml"
        path.write_text(
            yaml.safe_dump({"claim": "it-vasevqa", "service_account": "it-vasevqa", "images": self.images, **settings})
        )
        return path

    def be_a_user(self) -> None:
        """Install the chart without a recipe, and create a user who has only the chart's role for users."""
        self.add_volume("it-vasevqa")
        self.kubectl("create", "serviceaccount", "ada")
        subject = {"kind": "ServiceAccount", "name": "ada", "namespace": self.namespace}
        self.install("install", "--set-json", f"rbac.users={json.dumps([subject])}")
        mine = yaml.safe_load(command("kubectl", "config", "view", "--minify", "--raw", "--flatten", "-o", "yaml"))
        user = [{"name": "ada", "user": {"token": self.kubectl("create", "token", "ada").strip()}}]
        context = [
            {
                "name": "e2e",
                "context": {"cluster": mine["clusters"][0]["name"], "user": "ada", "namespace": self.namespace},
            }
        ]
        self.kubeconfig.write_text(
            yaml.safe_dump({**mine, "users": user, "contexts": context, "current-context": "e2e"})
        )
        self.kubeconfig.chmod(0o600)
        self.cluster_file()

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of the user."""
        return self.folder / "kubeconfig"

    def start(self, *words: str | Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start `vasevqa ...` on this machine as the user, with this site's Cluster file."""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.drive", *map(str, words)],
            cwd=ROOT,
            env={
                **os.environ,
                "VASEVQA_CLUSTER": str(self.folder / "cluster.yaml"),
                "KUBECONFIG": str(self.kubeconfig),
                **(env or {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def vasevqa(
        self, *words: str | Path, check: int | None = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(*words, env=env)
        out, errors = process.communicate(timeout=240)
        assert check is None or process.returncode == check, out + errors
        assert "Traceback" not in errors, errors
        return subprocess.CompletedProcess(process.args, process.returncode, out, errors)

    def hold(self, step: str) -> Path:
        path = self.volume / "control" / f"{step}.hold"
        path.touch()
        return path

    def wait_until_held(self, step: str) -> None:
        until((self.volume / "control" / f"{step}.hold.reached").exists, f"{step} to wait", 120)

    def launchers(self) -> list[dict[str, Any]]:
        """Return the launchers' Jobs, oldest first."""
        return sorted(
            self.all("jobs", "-l", "app.kubernetes.io/component=launcher"),
            key=lambda job: job["metadata"]["creationTimestamp"],
        )

    def finish(self, count: int) -> None:
        """Wait until `count` launchers exist and are complete."""

        def ends() -> list[str]:
            conditions = [job["status"].get("conditions", []) for job in self.launchers()]
            return [next((item["type"] for item in found if item["status"] == "True"), "") for found in conditions]

        until(lambda: len(ends()) == count and all(ends()), "the launchers to end", 240)
        assert ends() == ["Complete"] * count

    def wait_until_launched(self) -> None:
        """Wait until the chart's own Job has started the launcher."""
        until(
            lambda: all(
                job["status"].get("succeeded") for job in self.all("jobs", "-l", "app.kubernetes.io/component=launch")
            ),
            "the launch",
            120,
        )

    def wish(self, step: str, *outcomes: int | str) -> None:
        """Set how the next attempts of `step` end."""
        (self.volume / "control" / f"{step}.fail").write_text(json.dumps(outcomes))

    def attempts(self) -> Sequence[str]:
        """Return the steps that began, in order."""
        log = self.volume / "control/attempts.log"
        return (
            [line.split()[0] for line in log.read_text().splitlines() if line.split()[1] == "begins"]
            if log.exists()
            else []
        )

    def remove(self) -> None:
        self.kubectl("delete", "namespace", self.namespace, "--wait=false")
        self.kubectl("delete", "pv", self.namespace, "--wait=false", "--ignore-not-found")


@pytest.fixture(scope="session")
def inside_images() -> dict[str, str]:
    return images()


@pytest.fixture
def site(inside_images: dict[str, str]) -> Iterator[Site]:
    """An empty namespace. Its volume is a folder on this machine's node."""
    yield from site_in(inside_images)


def site_in(made: dict[str, str]) -> Iterator[Site]:
    """Create such a namespace with other images."""
    before = os.umask(0)  # pods have another uid than this process
    folder = Path(tempfile.mkdtemp(prefix="vase-e2e-", dir=os.environ.get("VASEVQA_E2E_FOLDER", "/var/tmp")))
    folder.chmod(0o755)
    found = Site(folder / "volume", made)
    yield found
    os.umask(before)
    found.remove()
    until(
        lambda: not command("kubectl", "get", "namespace", found.namespace, "--ignore-not-found"),
        "the removal of the namespace",
        120,
    )
    shutil.rmtree(folder, ignore_errors=True)
