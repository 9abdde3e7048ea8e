"""The docker backend: a stage is a container on this machine, which outlives a killed launcher and is found again by
its labels.

Containers see the volume, and what a step reads outside of it, at the very paths that the launcher uses, so nothing is
ever translated. They run as the caller, with a read-only root, without capabilities, and are removed once their end is
known.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from docker.errors import APIError, ImageNotFound, NotFound
from docker.types import DeviceRequest, LogConfig, Mount

from vasevqa.backends.base import Outcome, State, Task, Update, attempt_of
from vasevqa.backends.checks import stage_of
from vasevqa.backends.cluster import Cluster
from vasevqa.backends.docker.engine import AWAY, built_here, connect, said, translated
from vasevqa.backends.docker.logs import Follower
from vasevqa.backends.environment import container_environment, stage_environment
from vasevqa.errors import ClusterError, ClusterUnreachable, ConfigError, DeviceError
from vasevqa.faults import FaultPoint, fault
from vasevqa.spec import quantity_bytes

LABEL = "vasevqa"
STATES = {
    "created": State.PENDING,
    "exited": State.FINISHED,
    "dead": State.FINISHED,
}  # every other one is a kind of running
NO_ROTATION = "1000g"  # whatever the daemon's own settings say: a log is read from its beginning
TRY_AGAIN = 2.0  # seconds until an engine that went away is asked again
ENDING = 2.0  # seconds from the end of a container's output to its own


class DockerBackend:
    """Stages as containers of the engine that DOCKER_HOST names, for the artifacts on `volume`."""

    enforces_limits = True

    def __init__(self, volume: Path, cluster: Cluster) -> None:
        self._volume, self._cluster = volume, cluster
        self._where = hashlib.sha256(os.path.realpath(volume).encode()).hexdigest()[:8]
        self._client = connect()
        self._news = threading.Condition()
        self._followers: dict[str, Follower] = {}
        self._told: dict[str, tuple[State, str]] = {}
        self._closing = threading.Event()

    # What the engine is asked to do.

    def image(self, stage: str) -> str:
        """The stage's image by digest (by id where it came from no registry); fetched if a registry is named.

        ConfigError if it can't be had.
        """
        reference = self._cluster.image(stage)
        with translated(f"look for the image {reference}"):
            try:
                found = self._client.images.get(reference)
            except ImageNotFound:
                found = self._pull(reference)
        repository = re.split(r"@|:[^/]*$", reference)[0]
        digests = [digest for digest in found.attrs.get("RepoDigests") or [] if digest.split("@")[0] == repository]
        return str(digests[0] if digests else found.id)

    def _pull(self, reference: str) -> Any:
        if built_here(self._cluster, reference):
            raise ConfigError(
                f"The image {reference} isn't there; `make image STAGE={stage_of(reference)}` builds it, or name a"
                " registry in the Cluster file."
            )
        try:
            self._client.images.pull(reference)
            return self._client.images.get(reference)
        except (APIError, ImageNotFound) as error:
            raise ConfigError(
                f"The image {reference} can't be fetched ({said(error)}); check its name and `docker login`."
            ) from None

    def submit(self, task: Task) -> None:
        """Create and start the container; one of that name which is there already is adopted.

        ConfigError without the image, DeviceError where the engine has no GPUs for it, ClusterUnreachable if it doesn't
        answer, ClusterError if it refuses otherwise.
        """
        task.log.parent.mkdir(parents=True, exist_ok=True)
        task.log.touch()
        with translated(f"start {task.name}"):
            try:
                container = self._client.containers.create(**self.container(task))
            except ImageNotFound:
                raise ConfigError(
                    f"The image {task.image or self._cluster.image(task.stage)} isn't there any more; build or fetch it"
                    " again."
                ) from None
            except APIError as error:
                if error.status_code != 409:
                    raise
                container = self._container(task.name)
                if (
                    container is None
                ):  # another launcher had it, and is done with it: it is gone, which the caller will find
                    return
                if container.labels.get(f"{LABEL}.key") != task.key:
                    raise ClusterError(
                        f"There is another container called {container.name}; remove it (`docker rm {container.name}`)."
                    ) from None
            fault(FaultPoint.IN_SUBMIT, task.step)
            self._start(container, task.resources.gpus)

    def _start(self, container: Any, gpus: int = 0) -> None:
        """Start a container that was never started: one that ended must not run again."""
        container.reload()
        if container.status != "created":
            return
        try:
            container.start()
        except APIError as error:
            with contextlib.suppress(*AWAY):
                container.remove(force=True, v=True)
            if gpus and re.search(r"device driver|nvidia|cdi|gpu", str(error), re.IGNORECASE):
                raise DeviceError(
                    f"The Docker engine has no GPUs for {container.labels.get(f'{LABEL}.job')} ({said(error)});"
                    " install the NVIDIA Container Toolkit, or say `device: cpu` to go on without."
                ) from None
            raise

    def container(self, task: Task) -> dict[str, Any]:
        """What `containers.create` is asked for."""
        asked = task.resources
        secrets = {
            name: os.environ[name] for name in self._cluster.secrets if os.environ.get(name)
        }  # on a cluster they lie in Secrets
        environment = {
            **self._cluster.over(container_environment(task, os.cpu_count() or 1)),
            **secrets,
            **stage_environment(task),
        }
        # The volume's own cache would be another one than the user's.
        caches = {
            Path(environment[name])
            for name in ("HF_HOME", "TORCH_HOME")
            if not Path(environment[name]).is_relative_to(task.volume)
        }
        for folder in caches:
            folder.mkdir(parents=True, exist_ok=True)
        mounts = [Mount(str(task.volume), str(task.volume), "bind")]
        mounts += [Mount(str(path), str(path), "bind", read_only=False) for path in sorted(caches)]
        mounts += [Mount(str(path), os.path.realpath(path), "bind", read_only=True) for path in task.reads]
        # A step on the CPU uses no GPU, and this machine may have none: asking for them would only keep it from running
        # here.
        gpus = asked.gpus if task.device != "cpu" else 0
        return {
            "image": task.image or self._cluster.image(task.stage),
            "command": list(task.arguments),
            "name": f"{task.name}.{self._where}",
            "labels": {
                LABEL: self._where,
                f"{LABEL}.job": task.name,
                f"{LABEL}.run": task.run,
                f"{LABEL}.step": task.step,
                f"{LABEL}.key": task.key,
                f"{LABEL}.log": str(task.log),
            },
            "environment": environment,
            "mounts": mounts,
            "user": f"{os.getuid()}:{os.getgid()}",
            "group_add": [str(group) for group in os.getgroups()],
            "read_only": True,
            "tmpfs": {"/tmp": "exec,mode=1777"},  # noqa: S108 - the container's own; compiled kernels are loaded from there
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "mem_limit": quantity_bytes(asked.memory),
            "memswap_limit": quantity_bytes(asked.memory),
            "nano_cpus": int(min(asked.cpus, self._cpus()) * 1e9),
            "shm_size": quantity_bytes(asked.shm),
            "log_config": LogConfig(type=LogConfig.types.JSON, config={"max-size": NO_ROTATION}),
            "device_requests": [DeviceRequest(count=gpus, capabilities=[["gpu"]])] if gpus else None,
        }

    def _cpus(self) -> int:
        return int(self._client.info()["NCPU"])

    # What it is asked to tell.

    def _container(self, name: str) -> Any | None:
        try:
            return self._client.containers.get(f"{name}.{self._where}")
        except NotFound:
            return None

    def existing(self, prefix: str) -> list[str]:
        """The jobs of this volume whose names begin with `prefix`, by attempt."""
        with translated("list the containers"):
            listed = self._client.api.containers(all=True, filters={"label": f"{LABEL}={self._where}"})
        names = [str(entry["Labels"].get(f"{LABEL}.job", "")) for entry in listed]
        return sorted(
            (name for name in names if name.startswith(prefix) and re.search(r"-[0-9]+$", name)), key=attempt_of
        )

    def state(self, name: str) -> State:
        """Where the container stands now."""
        with translated(f"look at {name}"):
            container = self._container(name)
        return State.GONE if container is None else STATES.get(container.status, State.RUNNING)

    def owner(self, name: str) -> str | None:
        """The run that submitted the job."""
        return self._label(name, "run")

    def log(self, name: str) -> Path | None:
        """The file of the job's output."""
        found = self._label(name, "log")
        return Path(found) if found else None

    def _label(self, name: str, label: str) -> str | None:
        with translated(f"look at {name}"):
            container = self._container(name)
        return None if container is None else container.labels.get(f"{LABEL}.{label}")

    def watch(self, names: Collection[str], seconds: float) -> list[Update]:
        """News of these jobs as soon as there are any, at the latest after `seconds`."""
        for name in names:
            if name not in self._followers:
                with contextlib.suppress(ClusterUnreachable):  # the next watch looks again
                    self._follow(name)
        updates: list[Update] = []

        def any_news() -> bool:
            for name in (name for name in names if name in self._followers):
                state, text, note = self._followers[name].news()
                if text or state.is_terminal or self._told.get(name) != (state, note):
                    self._told[name] = (state, note)
                    updates.append(Update(name, state, text, note))
            return bool(updates)

        with self._news:
            self._news.wait_for(any_news, seconds)
        return updates

    def _follow(self, name: str) -> None:
        """Read the container's output in a thread; one that a killed launcher only created is started."""
        with translated(f"look at {name}"):
            container = self._container(name)
            if container is not None:
                self._start(container)
        log = None if container is None else Path(container.labels[f"{LABEL}.log"])
        follower = Follower(log, self._news, self._output(container))
        self._followers[name] = follower
        follower.start()

    def _output(self, container: Any | None) -> Callable[[Follower], State]:
        """What a follower does: the container's output from its beginning, however often the engine goes away, then how
        it stands.
        """

        def follow(follower: Follower) -> State:
            over = False
            while container is not None and not self._closing.is_set():
                try:
                    position = 0
                    for block in container.logs(stream=True, follow=not over):
                        follower.write(block, position)
                        position += len(block)
                    if over:
                        return State.FINISHED
                    over = self._ended(
                        container
                    )  # then once more, for docker's client takes a connection that broke off for an end
                except NotFound:
                    break
                except AWAY as error:
                    if isinstance(error, APIError) and error.status_code == 409:  # is being removed
                        break
                    follower.say("The Docker engine doesn't answer; its containers are looked for again until it does.")
                    self._closing.wait(TRY_AGAIN)
            return State.GONE

        return follow

    def _ended(self, container: Any) -> bool:
        """True if the container whose output ended has ended too, or does so in a moment."""
        end = time.monotonic() + ENDING
        while time.monotonic() < end:
            container.reload()
            if STATES.get(container.status) is State.FINISHED:
                return True
            self._closing.wait(0.05)
        return False

    def outcome(self, name: str) -> Outcome:
        """The exit code, and whether the kernel ended it for want of memory."""
        with translated(f"look at {name}"):
            container = self._container(name)
        if container is None:
            return Outcome(None, message="its container is gone")
        state: Mapping[str, Any] = container.attrs["State"]
        code = int(state["ExitCode"])
        return Outcome(code, oom=bool(state.get("OOMKilled")) and code != 0, message=str(state.get("Error") or ""))

    def cancel(self, name: str, grace: float) -> None:
        """The engine sends SIGTERM now and SIGKILL after `grace` seconds, whatever becomes of this process."""
        with translated(f"stop {name}"):
            container = self._container(name)
            if container is None or STATES.get(container.status) is State.FINISHED:
                return
            if container.status == "created":
                container.remove(v=True)
                return

        def stop() -> None:
            with contextlib.suppress(*AWAY):
                container.stop(timeout=int(grace))

        # The engine counts the seconds. A kill at once is worth waiting for; else whoever cancels watches the end
        # anyway.
        threading.Thread(target=stop, name=f"stop {name}", daemon=grace > 0).start()

    def remove(self, name: str) -> None:
        """Remove the container; its log stays."""
        with translated(f"remove {name}"):
            container = self._container(name)
            if container is not None:
                try:
                    container.remove(force=True, v=True)
                except NotFound:
                    pass
                except APIError as error:
                    if error.status_code != 409:  # another launcher is removing it just now
                        raise
        self._followers.pop(name, None)
        self._told.pop(name, None)

    def forget_run(self, run: str) -> None:
        """Nothing is made for a run as a whole."""

    def gone(self, pod: str) -> bool:
        """Nothing is known of pods."""
        return False

    def close(self) -> None:
        """Let go of the engine; containers run on."""
        self._closing.set()
        self._client.close()
