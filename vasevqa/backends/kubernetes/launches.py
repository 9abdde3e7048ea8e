"""Starts launchers in the cluster, finds them again and follows what they print."""

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
LAUNCH_SECONDS = 120.0  # in which the chart's Job starts a launcher
REFUSED_SECONDS = 60.0  # for which an API server that has just started may not know anybody's rights
# With these the launcher has said its last word: the restarts that the Job still allows would only repeat it.
SETTLED = (1, 2, 3, 4, 5, 6, 130)


def start(access: Session, launch: Launch, owner: str | None = None) -> bool:
    """Start the launch.

    Return False if it runs already.

    `owner` names the ConfigMap that owns the launch: deleting that ConfigMap deletes the launch too.

    Raise ClusterError if somebody else starts the same launch at this moment, or if the cluster refuses.
    """
    above = None
    if owner is not None:
        found = access.ask(f"read the ConfigMap {owner}", access.get, access.path("configmaps", owner))
        above = {"name": owner, "uid": found["metadata"]["uid"]}
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
            f"Somebody else is starting {launch.name} right now; `vasevqa attach {launch.name}` follows it."
        )
    return True


def _settings(access: Session, launch: Launch, above: Manifest | None) -> str:
    """Return the UID of the launch's ConfigMap; create the ConfigMap if it does not exist."""
    while True:
        made = _create(access, "hand over the recipe", "configmaps", render_settings(launch, above))
        if made is None:
            made = access.ask("read the recipe", access.find, "configmaps", launch.name)
        if made is not None and "deletionTimestamp" not in made["metadata"]:
            return str(made["metadata"]["uid"])
        _gone(access, "configmaps", launch.name)


def _create(access: Session, doing: str, kind: str, manifest: Manifest) -> Manifest | None:
    """Create an object and return it; return None if an object of that name exists."""
    try:
        made: Manifest = access.ask(doing, access.create, kind, manifest)
    except ApiError as refusal:
        if refusal.status != 409:
            raise
        return None
    return made


def _gone(access: Session, kind: str, name: str) -> None:
    """Wait until an object that is being removed is gone.

    Raise ClusterError if this takes longer than REMOVAL_SECONDS.
    """
    end = time.monotonic() + REMOVAL_SECONDS
    while access.ask("see what is left of an earlier launch", access.find, kind, name) is not None:
        if time.monotonic() > end:
            raise ClusterError(f"{name} of an earlier launch is still being removed; try again in a minute.")
        time.sleep(LOOK_SECONDS)


def verdict(job: Manifest) -> str:
    """Return 'Complete' or 'Failed'; '' for a Job that has not ended."""
    conditions = job.get("status", {}).get("conditions") or []
    return next(
        (item["type"] for item in conditions if item["type"] in ("Complete", "Failed") and item["status"] == "True"), ""
    )


def find(access: Session, name: str | None) -> str:
    """Return the name of a launch; without `name`, of the newest one.

    `name` is the full name of a launch, a run that a launch made, or the beginning of only one launch's name. Without
    `name`, first wait until the chart's own Job has started a launcher.

    Raise ConfigError if there is no such launch, or if several names begin so. Raise ClusterError if the chart's Job
    started none.
    """
    if name is None:
        _await_launch(access)
    found = access.ask("list launches", access.all, "configmaps", labelSelector=LAUNCH_LABEL)
    launches = [item["metadata"]["name"] for item in found]
    if not launches:
        raise ConfigError(
            f"There is no launch in namespace {access.namespace}; start one with `vasevqa submit RECIPE`."
        )
    if name is None:  # by their Jobs: a launch that is made again has the ConfigMap that it had
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
        f"There {'are several launches' if near else 'is no launch or run'} '{name}' in namespace"
        f" {access.namespace}.{nearest(name, launches)}"
    )


def _await_launch(access: Session) -> None:
    """Wait while the chart's own Job is about to start a launcher.

    Raise ClusterError if that Job failed, or if it starts none within LAUNCH_SECONDS.
    """
    end = time.monotonic() + LAUNCH_SECONDS
    while True:
        found = access.ask(
            "look for a launch", access.all, "jobs", labelSelector="app.kubernetes.io/component in (launch,launcher)"
        )
        newest = found[-1] if found else {"metadata": {"labels": {LAUNCH_LABEL: ""}}}
        if LAUNCH_LABEL in newest["metadata"].get("labels", {}) or verdict(newest) == "Complete":
            return
        name = newest["metadata"]["name"]
        if verdict(newest) or time.monotonic() > end:
            raise ClusterError(
                f"The Job {name} of the chart has started no launcher; `kubectl -n {access.namespace} logs job/{name}`"
                " says why."
            )
        time.sleep(LOOK_SECONDS)


def release(access: Session) -> str | None:
    """Return the ConfigMap of the one Helm release that uses this claim; None if there is not exactly one.

    Also return None without the right to read ConfigMaps. A launch that this ConfigMap owns is deleted together with
    the release.
    """
    with contextlib.suppress(ApiError, yaml.YAMLError):
        found = access.all(
            "configmaps", labelSelector="app.kubernetes.io/managed-by=Helm,app.kubernetes.io/name=vasevqa"
        )
        settings = {
            item["metadata"]["name"]: yaml.safe_load((item.get("data") or {}).get("cluster.yaml", "")) or {}
            for item in found
        }
        ours = [name for name, said in settings.items() if said.get("claim") == access.cluster.claim]
        return ours[0] if len(ours) == 1 else None
    return None


def newest_pod(access: Session, launch: str) -> Manifest | None:
    """Return the launcher's newest pod; None if it has none."""
    found = access.ask("look for the launcher's pod", access.all, "pods", labelSelector=f"job-name={launch}")
    return found[-1] if found else None


def follow(access: Session, launch: str, say: Callable[[str], None], where: str = "") -> int:
    """Pass on what the launcher prints until it has ended, and return its exit code.

    If the cluster does not answer, this is reported once and the cluster is asked again.

    `where` holds the command-line options that lead to this cluster and namespace; a message repeats them.

    Raise ClusterError if the launcher was removed.
    """
    log, told, code, ends = _Log(access, say), "", 0, float("inf")
    allowed: float | None = None  # when the cluster last answered
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
    """Return what keeps the launcher from running, by its pod, or by the Job's events if it has no pod."""
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
    """True if there is a log.

    Between two starts the container waits, and the log is that of its last process.
    """
    for status in pod["status"].get("containerStatuses") or []:
        state, last = status.get("state") or {}, status.get("lastState") or {}
        if state.get("running") or state.get("terminated") or last.get("terminated"):
            return True
    return False


def _code(pod: Manifest) -> int:
    """Return the exit code of the launcher's last process; 0 if none has ended.

    Also return 0 if the next process runs already, because that process reports its own result.
    """
    for status in pod["status"].get("containerStatuses") or []:
        for when in () if (status.get("state") or {}).get("running") else ("state", "lastState"):
            ended = (status.get(when) or {}).get("terminated")
            if ended:
                return int(ended.get("exitCode", 0))
    return 0


class _Log:
    """Passes on the logs of a launcher's pods, each line once, even when the connection breaks."""

    def __init__(self, access: Session, say: Callable[[str], None]) -> None:
        self.access, self.say = access, say
        self.pod, self.unseen, self.heard = "", Unseen(), False

    def read(self, pod: str) -> bool:
        """Read the log until the container's present process ends.

        Return False if the connection broke before that. The next call continues at that line.
        """
        if pod != self.pod:  # its node's clock may be another's
            self.pod, self.unseen = pod, Unseen()
        try:
            for lines in self.access.log(pod, "launcher", self.unseen.reconnected()):
                for line in self.unseen.fresh(lines):
                    self.heard = True
                    self.say(line.decode("utf-8", "replace").rstrip("\n"))
        except ClusterUnreachable:
            return False
        except ApiError:
            return True  # between two starts of the container, or gone: what follows says it
        return True
