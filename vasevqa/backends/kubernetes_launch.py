"""Launchers in the cluster: starting one, finding it again, following what it prints."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from vasevqa.backends.kubernetes_access import TIMEOUT, Access, trouble
from vasevqa.backends.launcher_manifest import LAUNCH_LABEL, Launch, owner_reference, render_launcher, render_settings
from vasevqa.errors import ClusterError, ConfigError, nearest

LOOK_SECONDS = 1.0
REMOVAL_SECONDS = 120.0
# With these the launcher has said its last word: the restarts that the Job still allows would only repeat it.
SETTLED = (1, 2, 3, 4, 5, 6, 130)


def start(access: Access, launch: Launch, owner: str | None = None) -> bool:
    """Start the launch, or leave it be if it runs already (False). `owner` names the ConfigMap that it goes down with."""
    above = None
    if owner is not None:
        found = access.ask(f"read the ConfigMap {owner}", access.core.read_namespaced_config_map, owner, access.namespace)
        above = owner_reference(owner, found.metadata.uid)
    uid = _settings(access, launch, above)
    job = render_launcher(launch, owner_reference(launch.name, uid))
    if _create(access, "start the launcher", access.batch.create_namespaced_job, job) is not None:
        return True
    standing = access.ask("read the launcher's Job", access.batch.read_namespaced_job, launch.name, access.namespace, missing=None)
    if standing is not None and not verdict(access.plain(standing)) and standing.metadata.deletion_timestamp is None:
        return False
    _remove(access, launch.name)
    if _create(access, "start the launcher", access.batch.create_namespaced_job, job) is None:
        raise ClusterError(f"Somebody else is starting {launch.name} at this moment; `vasevqa attach {launch.name}` follows it.")
    return True


def _settings(access: Access, launch: Launch, above: Mapping[str, Any] | None) -> str:
    """The uid of the launch's ConfigMap, which is made if need be."""
    end = time.monotonic() + REMOVAL_SECONDS
    while True:
        made = _create(access, "hand over the recipe", access.core.create_namespaced_config_map, render_settings(launch, above))
        if made is None:
            made = access.ask("read the recipe", access.core.read_namespaced_config_map, launch.name, access.namespace, missing=None)
        if made is not None and made.metadata.deletion_timestamp is None:
            return str(made.metadata.uid)
        if time.monotonic() > end:
            raise ClusterError(f"The ConfigMap {launch.name} of an earlier launch is still being removed; try again in a minute.")
        time.sleep(LOOK_SECONDS)


def _create(access: Access, doing: str, create: Callable[..., Any], manifest: Mapping[str, Any]) -> Any:
    """What was created, or None if something of that name exists."""
    try:
        return access.ask(doing, create, access.namespace, dict(manifest))
    except ClusterError as error:
        if getattr(error.__cause__, "status", None) == 409:
            return None
        raise


def _remove(access: Access, job: str) -> None:
    def there() -> Any:
        return access.ask("read a launcher's Job", access.batch.read_namespaced_job, job, access.namespace, missing=None)

    access.ask("remove the launcher's last Job", access.batch.delete_namespaced_job, job, access.namespace, propagation_policy="Foreground", missing=None)
    end = time.monotonic() + REMOVAL_SECONDS
    while there() is not None:
        if time.monotonic() > end:
            raise ClusterError(f"The Job {job} of an earlier launch is still being removed; try again in a minute.")
        time.sleep(LOOK_SECONDS)


def verdict(job: Mapping[str, Any]) -> str:
    """'Complete', 'Failed' or '' for a Job that isn't over."""
    conditions = job.get("status", {}).get("conditions") or []
    return next((item["type"] for item in conditions if item["type"] in ("Complete", "Failed") and item["status"] == "True"), "")


def find(access: Access, name: str | None) -> str:
    """The launch called `name` (or beginning so), or the one that made the run of that name; the newest without a name."""
    found = access.ask("list launches", access.core.list_namespaced_config_map, access.namespace, label_selector=LAUNCH_LABEL)
    launches = [
        item.metadata.name
        for item in sorted(found.items, key=lambda item: item.metadata.creation_timestamp)
        if item.metadata.labels[LAUNCH_LABEL] == item.metadata.name
    ]
    if not launches:
        raise ConfigError(f"There is no launch in namespace {access.namespace}; start one with `vasevqa submit RECIPE`.")
    if name is None:
        return str(launches[-1])
    if name in launches:
        return name
    run = access.ask("look for the run", access.core.read_namespaced_config_map, f"vase-run-{name}", access.namespace, missing=None)
    for owner in (run.metadata.owner_references or []) if run is not None else []:
        if owner.name in launches:
            return str(owner.name)
    near = [launch for launch in launches if launch.startswith(name)]
    if len(near) == 1:
        return str(near[0])
    raise ConfigError(f"There {'are several launches' if near else 'is no launch or run'} '{name}' in namespace {access.namespace}.{nearest(name, launches)}")


def newest_pod(access: Access, launch: str) -> dict[str, Any] | None:
    """The launcher's pod, if it has one."""
    found = access.ask("look for the launcher's pod", access.core.list_namespaced_pod, access.namespace, label_selector=f"job-name={launch}").items
    return access.plain(max(found, key=lambda pod: pod.metadata.creation_timestamp)) if found else None


def follow(access: Access, launch: str, say: Callable[[str], None]) -> int:
    """Pass on what the launcher prints until it is over; its exit code."""
    log, told, code = _Log(access, say), "", 0
    while True:
        job = access.ask("read the launcher's Job", access.batch.read_namespaced_job, launch, access.namespace, missing=None)
        if job is None:
            raise ClusterError(f"The launcher {launch} was removed.")
        over = verdict(access.plain(job))
        pod = newest_pod(access, launch)
        note = (trouble(pod) if pod["status"].get("phase") != "Running" else "") if pod else ("" if over else _no_pod(access, launch))
        if note and note != told:
            say(f"The launcher waits: {note}.")
        told = note or told
        if pod is not None:
            began = any((status.get("state") or {}).get(at) for status in pod["status"].get("containerStatuses") or [] for at in ("running", "terminated"))
            if began:
                log.read(pod["metadata"]["name"], not over)
                pod = newest_pod(access, launch) or pod
            code = _code(pod) or code
        if over == "Complete":
            return 0
        if code in SETTLED or over:
            return code or 1
        time.sleep(LOOK_SECONDS)


def _no_pod(access: Access, launch: str) -> str:
    """Why a Job has no pod, by its events."""
    with contextlib.suppress(ClusterError):
        selector = f"involvedObject.kind=Job,involvedObject.name={launch},type=Warning"
        events = access.ask("read events", access.core.list_namespaced_event, access.namespace, field_selector=selector).items
        if events:
            return str(events[-1].message)
    return ""


def _code(pod: Mapping[str, Any]) -> int:
    """The exit code of the launcher's last process; 0 if none ended badly."""
    for status in pod["status"].get("containerStatuses") or []:
        for when in ("state", "lastState"):
            ended = (status.get(when) or {}).get("terminated")
            if ended:
                return int(ended.get("exitCode", 0))
    return 0


class _Log:
    """A pod's log, passed on line by line, each once, whatever happens to the connection."""

    def __init__(self, access: Access, say: Callable[[str], None]) -> None:
        self.access, self.say = access, say
        self.last = ""  # the newest line's time, to the nanosecond

    def read(self, pod: str, follow: bool) -> None:
        from urllib3.exceptions import HTTPError

        options: dict[str, Any] = {"follow": follow, "timestamps": True, "_preload_content": False, "_request_timeout": TIMEOUT}
        if self.last:
            options["since_seconds"] = max(1, int(time.time() - _seconds(self.last)) + 5)
        try:
            stream = self.access.ask("read the launcher's log", self.access.core.read_namespaced_pod_log, pod, self.access.namespace, missing=None, **options)
        except ClusterError as error:
            if getattr(error.__cause__, "status", None) == 400:  # the container is between two starts
                return
            raise
        if stream is None:
            return
        rest = b""
        try:
            for block in stream.stream(4096):
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    self._take(line.decode("utf-8", "replace"))
        except (HTTPError, OSError):  # quiet for a minute, rotated, or cut: the next look goes on after the last line
            return
        finally:
            stream.release_conn()
        if rest:
            self._take(rest.decode("utf-8", "replace"))

    def _take(self, line: str) -> None:
        stamp, _, text = line.partition(" ")
        key = stamp.rstrip("Z").ljust(30, "0")
        if key > self.last:
            self.last = key
            self.say(text)


def _seconds(stamp: str) -> float:
    try:
        return datetime.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        return time.time() - 3600
