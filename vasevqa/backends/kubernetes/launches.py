"""Start launchers in the cluster, find running launchers, and print their output."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import yaml

from vasevqa.backends.kubernetes.api import ApiError
from vasevqa.backends.kubernetes.launcher_job import (
    LAUNCH_LABEL,
    Launch,
    render_launcher,
    render_settings,
)
from vasevqa.backends.kubernetes.logs import PATIENCE, Unseen
from vasevqa.backends.kubernetes.pod_template import Manifest
from vasevqa.backends.kubernetes.session import Session
from vasevqa.backends.kubernetes.status import trouble
from vasevqa.errors import ClusterError, ClusterUnreachable, ConfigError
from vasevqa.text import nearest

LOOK_SECONDS = 1.0
REMOVAL_SECONDS = 120.0
LAUNCH_SECONDS = 120.0  # seconds that the chart's Job has to start a launcher
REFUSED_SECONDS = 60.0  # seconds in which an API server that has just started may not know the users' rights
# After these exit codes the result of the launch is final. A further restart by the Job would give the same result.
SETTLED = (1, 2, 3, 4, 5, 6, 130)


def start(access: Session, launch: Launch, owner: str | None = None) -> bool:
    """Start the launch; return False if the launch is already running.

    `owner` names the ConfigMap that is to own the launch. When somebody deletes this ConfigMap, the cluster deletes the
    launch too.

    Raise ClusterError if somebody else starts the same launch at the same time, or if the cluster refuses the launch.
    """
    above = None
    if owner is not None:
        config_map = access.ask(f"read the ConfigMap {owner}", access.get, access.path("configmaps", owner))
        above = {"name": owner, "uid": config_map["metadata"]["uid"]}
    uid = _settings(access, launch, above)
    job = render_launcher(launch, {"name": launch.name, "uid": uid})
    if _create(access, "start the launcher", "jobs", job) is not None:
        return True
    standing = access.ask("read the launcher's Job", access.find, "jobs", launch.name)
    if standing is not None and not verdict(standing) and "deletionTimestamp" not in standing["metadata"]:
        return False
    access.ask("remove the launcher's last Job", access.delete, "jobs", launch.name)
    _gone(access, "jobs", launch.name)
    if _create(access, "start the launcher", "jobs", job) is None:
        raise ClusterError(
            f"Another user is starting {launch.name} at this moment; follow it with `vasevqa attach {launch.name}`."
        )
    return True


def _settings(access: Session, launch: Launch, above: Manifest | None) -> str:
    """Return the UID of the launch's ConfigMap; create the ConfigMap if it does not exist."""
    while True:
        made = _create(access, "store the recipe", "configmaps", render_settings(launch, above))
        if made is None:
            made = access.ask("read the recipe", access.find, "configmaps", launch.name)
        if made is not None and "deletionTimestamp" not in made["metadata"]:
            return str(made["metadata"]["uid"])
        _gone(access, "configmaps", launch.name)


def _create(access: Session, doing: str, kind: str, manifest: Manifest) -> Manifest | None:
    """Create an object and return it; return None if an object with that name exists."""
    try:
        made: Manifest = access.ask(doing, access.create, kind, manifest)
    except ApiError as refusal:
        if refusal.status != 409:
            raise
        return None
    return made


def _gone(access: Session, kind: str, name: str) -> None:
    """Wait until an object that is being removed no longer exists.

    Raise ClusterError if the removal takes longer than REMOVAL_SECONDS.
    """
    end = time.monotonic() + REMOVAL_SECONDS
    while access.ask("look for objects of an earlier launch", access.find, kind, name) is not None:
        if time.monotonic() > end:
            raise ClusterError(f"{name} of an earlier launch is still being removed; try again in a minute.")
        time.sleep(LOOK_SECONDS)


def verdict(job: Manifest) -> str:
    """Return 'Complete' or 'Failed' for a finished Job, and '' for any other Job."""
    conditions = job.get("status", {}).get("conditions") or []
    return next(
        (item["type"] for item in conditions if item["type"] in ("Complete", "Failed") and item["status"] == "True"), ""
    )


def find(access: Session, name: str | None) -> str:
    """Return the full name of a launch.

    `name` is the full name of a launch, or the beginning of the name of exactly one launch, or the name of a run that a
    launch started. If `name` is None, return the newest launch. In this case, first wait for the launcher that a Job of
    the Helm chart is still starting, if there is such a Job.

    Raise ConfigError if there is no such launch, or if several names begin with `name`. Raise ClusterError if the
    chart's Job started no launcher.
    """
    if name is None:
        _await_launch(access)
    config_maps = access.ask("list launches", access.all, "configmaps", labelSelector=LAUNCH_LABEL)
    launches = [item["metadata"]["name"] for item in config_maps]
    if not launches:
        raise ConfigError(
            f"There is no launch in namespace {access.namespace}; start a launch with `vasevqa submit RECIPE`."
        )
    if name is None:  # sorted by the time of their Jobs, because a launch that is started again keeps its ConfigMap
        jobs = [
            job["metadata"]["name"]
            for job in access.ask("list launchers", access.all, "jobs", labelSelector=LAUNCH_LABEL)
        ]
        return str(next((job for job in reversed(jobs) if job in launches), launches[-1]))
    if name in launches:
        return name
    run = access.ask("look for the run", access.find, "configmaps", f"vase-run-{name}") or {"metadata": {}}
    for owner in run["metadata"].get("ownerReferences", []):
        if owner["name"] in launches:
            return str(owner["name"])
    near = [launch for launch in launches if launch.startswith(name)]
    if len(near) == 1:
        return str(near[0])
    raise ConfigError(
        f"There {'are several launches that begin with' if near else 'is no launch or run'} '{name}' in namespace"
        f" {access.namespace}.{nearest(name, launches)}"
    )


def _await_launch(access: Session) -> None:
    """Wait until the Helm chart's Job has started a launcher; return at once if there is no such Job.

    Raise ClusterError if the Job failed, or if the Job started no launcher within LAUNCH_SECONDS.
    """
    end = time.monotonic() + LAUNCH_SECONDS
    while True:
        jobs = access.ask(
            "look for a launch", access.all, "jobs", labelSelector="app.kubernetes.io/component in (launch,launcher)"
        )
        newest = jobs[-1] if jobs else {"metadata": {"labels": {LAUNCH_LABEL: ""}}}
        if LAUNCH_LABEL in newest["metadata"].get("labels", {}) or verdict(newest) == "Complete":
            return
        name = newest["metadata"]["name"]
        if verdict(newest) or time.monotonic() > end:
            raise ClusterError(
                f"The Helm chart's Job {name} has started no launcher; look for the reason in `kubectl -n"
                f" {access.namespace} logs job/{name}`."
            )
        time.sleep(LOOK_SECONDS)


def release(access: Session) -> str | None:
    """Find the Helm release that uses this session's claim, and return the name of the release's ConfigMap.

    Return None if no release or more than one release uses the claim, or if the user has no right to read ConfigMaps.
    A launch that the ConfigMap owns is deleted together with the release.
    """
    with contextlib.suppress(ApiError, yaml.YAMLError):
        config_maps = access.all(
            "configmaps", labelSelector="app.kubernetes.io/managed-by=Helm,app.kubernetes.io/name=vasevqa"
        )
        settings = {
            item["metadata"]["name"]: yaml.safe_load((item.get("data") or {}).get("cluster.yaml", "")) or {}
            for item in config_maps
        }
        ours = [name for name, said in settings.items() if said.get("claim") == access.cluster.claim]
        return ours[0] if len(ours) == 1 else None
    return None


def newest_pod(access: Session, launch: str) -> Manifest | None:
    """Return the launcher's newest pod; None if the launcher has no pod."""
    pods = access.ask("look for the launcher's pod", access.all, "pods", labelSelector=f"job-name={launch}")
    return pods[-1] if pods else None


def follow(access: Session, launch: str, say: Callable[[str], None], where: str = "") -> int:
    """Print the launcher's output until the launcher ends, and return its exit code.

    If the cluster does not answer, the function reports this once and tries again.

    `where` holds the command-line options that select the cluster and the namespace. The function adds them to the
    commands that it suggests to the user.

    Raise ClusterError if the launcher was removed.
    """
    log, told, code, ends = _Log(access, say), "", 0, float("inf")
    allowed: float | None = None  # time of the cluster's last answer
    while True:
        whole = True
        try:
            job = access.ask("read the launcher's Job", access.find, "jobs", launch)
            if job is None:
                raise ClusterError(f"The launcher {launch} no longer exists: it was removed.")
            over = verdict(job)
            pod = newest_pod(access, launch)
            note = _waits(access, launch, pod) if not over else ""
            if pod is not None and _began(pod):
                whole = log.read(pod["metadata"]["name"])
                pod = newest_pod(access, launch) or pod
            code, allowed = (_code(pod) if pod else 0) or code, time.monotonic()
        except ClusterUnreachable as error:
            over, note = "", str(error).rstrip(".")
            allowed = allowed and time.monotonic()
        except ApiError as refusal:
            if refusal.status != 403 or allowed is None or time.monotonic() - allowed > REFUSED_SECONDS:
                raise
            over, note = "", ""
        if note and note != told:
            say(f"The launcher waits: {note}.")
        told = note or told
        if over or code in SETTLED:
            ends = min(ends, time.monotonic() + PATIENCE)
            if whole or time.monotonic() > ends:
                if not log.heard:  # a Job that has used up its restarts removes its pod
                    say(
                        f"The launcher's output can no longer be read; `vasevqa status{where}` shows how its run ended."
                    )
                return 0 if over == "Complete" else code or 1
        time.sleep(LOOK_SECONDS)


def _waits(access: Session, launch: str, pod: Manifest | None) -> str:
    """Return the reason why the launcher does not run; empty if no reason is known.

    The reason comes from the launcher's pod, or from the Job's events if there is no pod.
    """
    if pod is not None:
        return trouble(pod) if pod["status"].get("phase") == "Pending" else ""
    with contextlib.suppress(ApiError):
        events = access.all(
            "events", fieldSelector=f"involvedObject.kind=Job,involvedObject.name={launch},type=Warning"
        )
        if events:
            return str(events[-1].get("message", "")).rstrip(".")
    return ""


def _began(pod: Manifest) -> bool:
    """Return True if the launcher's container has a log.

    While a container waits for a restart, it still has the log of its previous process.
    """
    for status in pod["status"].get("containerStatuses") or []:
        state, last = status.get("state") or {}, status.get("lastState") or {}
        if state.get("running") or state.get("terminated") or last.get("terminated"):
            return True
    return False


def _code(pod: Manifest) -> int:
    """Return the exit code of the launcher's latest process.

    Return 0 if a process is running or none has ended yet, because the result is then unknown.
    """
    for status in pod["status"].get("containerStatuses") or []:
        for when in () if (status.get("state") or {}).get("running") else ("state", "lastState"):
            ended = (status.get(when) or {}).get("terminated")
            if ended:
                return int(ended.get("exitCode", 0))
    return 0


class _Log:
    """Prints the logs of a launcher's pods. No line is printed twice, even after a lost connection."""

    def __init__(self, access: Session, say: Callable[[str], None]) -> None:
        self.access, self.say = access, say
        self.pod, self.unseen, self.heard = "", Unseen(), False

    def read(self, pod: str) -> bool:
        """Print the log of `pod` until the process that runs in its container ends.

        Return False if the connection broke before the process ended. The next call continues after the last line that
        was read.
        """
        if pod != self.pod:  # the node's clock may differ
            self.pod, self.unseen = pod, Unseen()
        try:
            for lines in self.access.log(pod, "launcher", self.unseen.reconnected()):
                for line in self.unseen.fresh(lines):
                    self.heard = True
                    self.say(line.decode("utf-8", "replace").rstrip("\n"))
        except ClusterUnreachable:
            return False
        except ApiError:
            return True  # the container waits for its next start or no longer exists; the next loop finds out which
        return True
