"""The docker backend, which runs each stage as a container on this machine.

A container continues to run when its launcher ends. The next launcher finds the container by its labels.

The volume has the same path in the container as on this machine. This is also true for inputs outside the volume.
Containers run as the user who starts the launcher. Their root file system is read-only, and they have no capabilities.
A container is removed once its outcome is known.
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
from vasevqa.backends.docker.secrets import Secrets
from vasevqa.backends.environment import container_environment, reaches_hub, stage_environment
from vasevqa.confidential import SECRET_FILE
from vasevqa.errors import ClusterError, ClusterUnreachable, ConfigError, DeviceError
from vasevqa.faults import FaultPoint, fault
from vasevqa.spec import quantity_bytes

LABEL = "vasevqa"
# All other states of a container are treated as running.
STATES = {
    "created": State.PENDING,
    "exited": State.FINISHED,
    "dead": State.FINISHED,
}
NO_ROTATION = "1000g"  # overrides the daemon's settings, because logs are read from their beginning
PIDS = 16384  # processes and threads of one container; training on eight GPUs needs about 3,000
TRY_AGAIN = 2.0  # seconds before the next attempt to reach an engine that does not answer
ENDING = 2.0  # seconds to wait for a container to end after its output has ended


class DockerBackend:
    """Runs stages as containers on the Docker engine that the environment variable DOCKER_HOST names.

    The folder `volume` holds the artifacts.
    """

    enforces_limits = True

    def __init__(self, volume: Path, cluster: Cluster) -> None:
        self._volume, self._cluster = volume, cluster
        self._where = hashlib.sha256(os.path.realpath(volume).encode()).hexdigest()[:8]
        self._secrets = Secrets(volume, cluster)
        self._client = connect()
        self._news = threading.Condition()
        self._followers: dict[str, Follower] = {}
        self._told: dict[str, tuple[State, str]] = {}
        self._closing = threading.Event()

    # Commands.

    def image(self, stage: str) -> str:
        """Return the name of the stage's image with its digest, or the image's id if it has no digest.

        If the image is not on this machine, the method pulls it. Raise ConfigError if the image can't be pulled.
        """
        reference = self._cluster.image(stage)
        with translated(f"look for the image {reference}"):
            try:
                image = self._client.images.get(reference)
            except ImageNotFound:
                image = self._pull(reference)
        repository = re.split(r"@|:[^/]*$", reference)[0]
        digests = [digest for digest in image.attrs.get("RepoDigests") or [] if digest.split("@")[0] == repository]
        return str(digests[0] if digests else image.id)

    def _pull(self, reference: str) -> Any:
        if built_here(self._cluster, reference):
            raise ConfigError(
                f"The image {reference} does not exist; build it with `make image STAGE={stage_of(reference)}`, or"
                " set `registry` in the Cluster file."
            )
        try:
            self._client.images.pull(reference)
            return self._client.images.get(reference)
        except (APIError, ImageNotFound) as error:
            raise ConfigError(
                f"The image {reference} can't be pulled ({said(error)}); check its name, or log in with `docker login`."
            ) from None

    def submit(self, task: Task) -> None:
        """Start a container for `task`, or take over the existing container with the task's name.

        Raise ConfigError if the image is missing, and DeviceError if the engine has no GPUs for the container. Raise
        ClusterUnreachable if the engine doesn't answer, and ClusterError if it refuses the container for any other
        reason.
        """
        task.log.parent.mkdir(parents=True, exist_ok=True)
        task.log.touch()
        with translated(f"start {task.name}"):
            try:
                container = self._client.containers.create(**self.container(task))
            except ImageNotFound:
                raise ConfigError(
                    f"The image {task.image or self._cluster.image(task.stage)} no longer exists; build or pull it"
                    " again."
                ) from None
            except APIError as error:
                if error.status_code != 409:
                    raise
                container = self._container(task.name)
                # Another launcher used the container and has removed it. The caller then gets the state GONE.
                if container is None:
                    return
                if container.labels.get(f"{LABEL}.key") != task.key:
                    raise ClusterError(
                        f"There is another container called {container.name}; remove it (`docker rm {container.name}`)."
                    ) from None
            fault(FaultPoint.IN_SUBMIT, task.step)
            self._start(container, task.resources.gpus)

    def _start(self, container: Any, gpus: int = 0) -> None:
        """Start the container if it was never started. A container that has ended is not started again."""
        container.reload()
        if container.status != "created":
            return
        self._secrets.hand_over(container)
        try:
            container.start()
        except APIError as error:
            with contextlib.suppress(*AWAY):
                container.remove(force=True, v=True)
            if gpus and re.search(r"device driver|nvidia|cdi|gpu", str(error), re.IGNORECASE):
                raise DeviceError(
                    f"The Docker engine has no GPUs for {container.labels.get(f'{LABEL}.job')} ({said(error)});"
                    " install the NVIDIA Container Toolkit, or set `device: cpu` to run without a GPU."
                ) from None
            raise

    def container(self, task: Task) -> dict[str, object]:
        """Return the keyword arguments with which the docker client creates the task's container."""
        asked = task.resources
        environment = self._environment(task)
        # The container uses the caller's caches: mount the caches that lie outside the volume.
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
        # A step on the CPU must also run on a machine without GPUs, so its container requests no GPUs.
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
            "tmpfs": {"/tmp": "exec,mode=1777"},  # noqa: S108 - the container's own /tmp; "exec", because GPU kernels are compiled there and then loaded
            "cap_drop": ["ALL"],
            "pids_limit": PIDS,
            "security_opt": ["no-new-privileges"],
            "mem_limit": quantity_bytes(asked.memory),
            "memswap_limit": quantity_bytes(asked.memory),
            "nano_cpus": int(min(asked.cpus, self._cpus()) * 1e9),
            "shm_size": quantity_bytes(asked.shm),
            "log_config": LogConfig(type=LogConfig.types.JSON, config={"max-size": NO_ROTATION}),
            "device_requests": [DeviceRequest(count=gpus, capabilities=[["gpu"]])] if gpus else None,
        }

    def _environment(self, task: Task) -> dict[str, str]:
        """Return the container's environment without confidential values, which `docker inspect` would show."""
        environment = {
            **self._cluster.over(container_environment(task, os.cpu_count() or 1)),
            **stage_environment(task),
        }
        secrets = self._secrets.of(reaches_hub(environment))
        if secrets:
            environment[SECRET_FILE] = str(self._secrets.path(f"{task.name}.{self._where}"))
        return {name: value for name, value in environment.items() if name not in secrets}

    def _cpus(self) -> int:
        return int(self._client.info()["NCPU"])

    # Queries.

    def _container(self, name: str) -> Any | None:
        try:
            return self._client.containers.get(f"{name}.{self._where}")
        except NotFound:
            return None

    def existing(self, prefix: str) -> list[str]:
        """Return the names of this volume's jobs that begin with `prefix`, sorted by attempt number."""
        with translated("list the containers"):
            listed = self._client.api.containers(all=True, filters={"label": f"{LABEL}={self._where}"})
        names = [str(entry["Labels"].get(f"{LABEL}.job", "")) for entry in listed]
        return sorted(
            (name for name in names if name.startswith(prefix) and re.search(r"-[0-9]+$", name)), key=attempt_of
        )

    def state(self, name: str) -> State:
        """Return the container's present state; GONE if there is no container."""
        with translated(f"inspect {name}"):
            container = self._container(name)
        return State.GONE if container is None else STATES.get(container.status, State.RUNNING)

    def owner(self, name: str) -> str | None:
        """Return the name of the run that submitted the job; None if there is no container."""
        return self._label(name, "run")

    def log(self, name: str) -> Path | None:
        """Return the file with the job's output; None if there is no container."""
        path = self._label(name, "log")
        return Path(path) if path else None

    def _label(self, name: str, label: str) -> str | None:
        with translated(f"inspect {name}"):
            container = self._container(name)
        return None if container is None else container.labels.get(f"{LABEL}.{label}")

    def watch(self, names: Collection[str], seconds: float) -> list[Update]:
        """Return the updates on the jobs `names`; wait at most `seconds` for the first update."""
        for name in names:
            if name not in self._followers:
                with contextlib.suppress(ClusterUnreachable):  # the next call of `watch` tries again
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
        """Follow the container's output in a thread.

        If a launcher was killed before it could start the container, start the container first.
        """
        with translated(f"inspect {name}"):
            container = self._container(name)
            if container is not None:
                self._start(container)
        log = None if container is None else Path(container.labels[f"{LABEL}.log"])
        follower = Follower(log, self._news, self._output(container))
        self._followers[name] = follower
        follower.start()

    def _output(self, container: Any | None) -> Callable[[Follower], State]:
        """Return a function that reads the container's output, for use by a Follower.

        The function passes the output to the follower, and returns the container's final state. If the engine does not
        answer, the function tries again and reads the output from its beginning.
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
                    # Read again in any case: docker's client reports a broken connection as the end of the output.
                    over = self._ended(container)
                except NotFound:
                    break
                except AWAY as error:
                    if isinstance(error, APIError) and error.status_code == 409:  # the container is being removed
                        break
                    follower.say("The Docker engine doesn't answer; the launcher asks again until it gets an answer.")
                    self._closing.wait(TRY_AGAIN)
            return State.GONE

        return follow

    def _ended(self, container: Any) -> bool:
        """Wait at most `ENDING` seconds until the container ends; return False if it still runs."""
        end = time.monotonic() + ENDING
        while time.monotonic() < end:
            container.reload()
            if STATES.get(container.status) is State.FINISHED:
                return True
            self._closing.wait(0.05)
        return False

    def outcome(self, name: str) -> Outcome:
        """Return the job's exit code, and whether the kernel killed the container because memory ran out."""
        with translated(f"inspect {name}"):
            container = self._container(name)
        if container is None:
            return Outcome(None, message="its container no longer exists")
        state: Mapping[str, Any] = container.attrs["State"]
        code = int(state["ExitCode"])
        return Outcome(code, oom=bool(state.get("OOMKilled")) and code != 0, message=str(state.get("Error") or ""))

    def cancel(self, name: str, grace: float) -> None:
        """Send SIGTERM to the container now, and SIGKILL `grace` seconds later.

        A container that was never started is removed.
        """
        with translated(f"stop {name}"):
            container = self._container(name)
            if container is None or STATES.get(container.status) is State.FINISHED:
                return
            if container.status == "created":
                container.remove(v=True)
                self._secrets.forget(container.name)
                return

        def stop() -> None:
            with contextlib.suppress(*AWAY):
                container.stop(timeout=int(grace))

        # The engine counts the seconds of `grace`, even if this process ends. If `grace` is 0, the call is short. The
        # thread is then not a daemon, so this process ends only after the call. If `grace` is larger, the thread is a
        # daemon, and `watch` reports the end of the container.
        threading.Thread(target=stop, name=f"stop {name}", daemon=grace > 0).start()

    def remove(self, name: str) -> None:
        """Remove the container. The job's log file is kept."""
        with translated(f"remove {name}"):
            container = self._container(name)
            if container is not None:
                try:
                    container.remove(force=True, v=True)
                except NotFound:
                    pass
                except APIError as error:
                    if error.status_code != 409:  # another launcher is removing the container
                        raise
        self._secrets.forget(f"{name}.{self._where}")
        self._followers.pop(name, None)
        self._told.pop(name, None)

    def forget_run(self, run: str) -> None:
        """Do nothing, because this backend creates objects only for jobs, not for runs."""

    def gone(self, pod: str) -> bool:
        """Return False, because this backend has no pods."""
        return False

    def close(self) -> None:
        """Close the connection to the engine. Containers keep running."""
        self._closing.set()
        self._client.close()
