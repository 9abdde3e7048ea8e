"""The Kubernetes backend, which runs each attempt of a step as a Job.

The Job's pod mounts the claim at the path where the launcher mounts it. The backend watches Jobs, pods and warnings
instead of polling them. A thread reads the output of each pod. If the API server has not answered for AWAY_SECONDS, the
backend reports this. It continues once the server answers again.

The backend needs only these rights in its namespace: create, get, list, watch and delete for jobs and configmaps; get,
list and watch for pods, pod logs, events and claims.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vasevqa.backends.base import Outcome, State, Task, Update, attempt_of
from vasevqa.backends.cluster import Cluster
from vasevqa.backends.kubernetes import status as reasons
from vasevqa.backends.kubernetes import submission
from vasevqa.backends.kubernetes.api import Api, ApiError
from vasevqa.backends.kubernetes.logs import Follower
from vasevqa.backends.kubernetes.nodes import free_gpus
from vasevqa.backends.kubernetes.pod_template import Manifest
from vasevqa.backends.kubernetes.stage_job import (
    JOB,
    LOG,
    RUN,
    VOLUME,
    volume_id,
)
from vasevqa.backends.kubernetes.watch import Informer
from vasevqa.errors import ClusterError, ClusterUnreachable
from vasevqa.faults import FaultPoint, fault

AWAY_SECONDS = 2.0  # if the server is unreachable for a shorter time, this is not reported


@dataclass
class Known:
    """What this launcher knows about a job, and what it has already reported about the job.

    `pods` also contains deleted pods, because sometimes only a deleted pod shows how the job ended.
    """

    told: tuple[Any, ...] = ()
    image: str = ""
    log: Path | None = None
    pods: dict[str, Manifest] = field(default_factory=dict)  # by UID, including deleted pods
    alive: set[str] = field(default_factory=set)
    job: Manifest | None = None
    followers: dict[str, Follower] = field(default_factory=dict)  # by the pod's UID
    watched: bool = False
    free: str | None = None


class KubernetesBackend:
    """Runs stages as Jobs in one namespace.

    `cluster` names the claim that holds the artifacts.

    The constructor raises ClusterError if the cluster does not answer or does not grant the required rights.
    """

    enforces_limits = True

    def __init__(self, volume: Path, cluster: Cluster) -> None:
        self._volume, self._cluster = volume, cluster
        self._api = Api(cluster.context, cluster.namespace)
        self._news = threading.Condition(threading.RLock())
        self._known: dict[str, Known] = {}
        self._warnings: dict[
            str, dict[str, Manifest]
        ] = {}  # by the UID of the object that a warning is about, then by the warning's own UID
        self._closing = threading.Event()
        ours = {"labelSelector": f"{VOLUME}={volume_id(cluster)}"}
        try:
            self._jobs = Informer(self._api, self._api.path("jobs"), ours, self._news, self._job_changed)
            self._informers = [
                self._jobs,
                Informer(self._api, self._api.path("pods"), ours, self._news, self._pod_changed),
            ]
        except ApiError as refusal:
            raise ClusterError(
                f"Namespace {self._api.namespace} of {self._api.host} can't be used: {reasons.short(str(refusal))}; ask"
                " for the rights that the README lists."
            ) from None
        with contextlib.suppress(ApiError):  # without the right to read events, some reasons are not reported
            self._informers.append(
                Informer(
                    self._api, self._api.path("events"), {"fieldSelector": "type=Warning"}, self._news, self._warned
                )
            )
        for informer in self._informers:
            informer.start()

    def image(self, stage: str) -> str:
        """Return the name of the stage's image according to the Cluster file.

        The image's digest is known only after a pod has started with the image.
        """
        return self._cluster.image(stage)

    def close(self) -> None:
        """Close connections and stop threads.

        Jobs keep running.
        """
        self._closing.set()
        for informer in self._informers:
            informer.close()
        with self._news:
            for known in self._known.values():
                for follower in known.followers.values():
                    follower.close()
            self._news.notify_all()
        self._api.close()

    # The watches hold the condition when they call the following methods.

    def _job_changed(self, job: Manifest, alive: bool) -> None:
        known = self._known.setdefault(job["metadata"]["name"], Known())
        if alive:
            if known.job is not None and known.job["metadata"]["uid"] != job["metadata"]["uid"]:
                self._known[job["metadata"]["name"]] = known = Known(watched=known.watched)  # another Job of that name
            known.job = job
            if known.watched:
                self._follow(job["metadata"]["name"], known)  # the watch may have reported the pod before its Job
        elif known.job is not None and known.job["metadata"]["uid"] == job["metadata"]["uid"]:
            known.job = None
            self._forget_if_nothing_is_left(job["metadata"]["name"])

    def _pod_changed(self, pod: Manifest, alive: bool) -> None:
        name, uid = pod["metadata"].get("labels", {}).get(JOB, ""), pod["metadata"]["uid"]
        known = self._known.setdefault(name, Known())
        known.pods[uid] = pod
        (known.alive.add if alive else known.alive.discard)(uid)
        if not alive:
            self._forget_if_nothing_is_left(name)
        elif known.watched:
            self._follow(name, known)

    def _forget_if_nothing_is_left(self, name: str) -> None:
        known = self._known[name]
        if known.job is None and not known.alive and not known.watched:
            del self._known[name]

    def _warned(self, event: Manifest, alive: bool) -> None:
        about = self._warnings.setdefault(str(event.get("involvedObject", {}).get("uid", "")), {})
        if alive:
            about[event["metadata"]["uid"]] = event
        else:
            about.pop(event["metadata"]["uid"], None)

    # Queries.

    def existing(self, prefix: str) -> list[str]:
        """Return the names of this volume's Jobs that begin with `prefix`, sorted by attempt number."""
        with self._news:
            names = [name for name, known in self._known.items() if known.job is not None and name.startswith(prefix)]
        return sorted((name for name in names if re.search(r"-[0-9]+$", name)), key=attempt_of)

    def state(self, name: str) -> State:
        """Return the job's state, as far as the watches have reported it."""
        with self._news:
            return reasons.state_of(self._seen(name))

    def owner(self, name: str) -> str | None:
        """Return the name of the run in the Job's label; None if there is no such Job."""
        with self._news:
            known = self._known.get(name)
            return None if known is None or known.job is None else known.job["metadata"].get("labels", {}).get(RUN)

    def log(self, name: str) -> Path | None:
        """Return the file with the job's output; None if the job is unknown.

        An annotation of the Job holds the file's path, relative to the volume.
        """
        with self._news:
            known = self._known.get(name)
            if known is None:
                return None
            if known.log is None and known.job is not None:
                known.log = self._volume / known.job["metadata"].get("annotations", {}).get(LOG, f"logs/{name}.log")
            return known.log

    def _seen(self, name: str) -> reasons.Seen:
        """Return the Job called `name`, its pods (oldest first), and the warnings about them.

        The caller must hold `self._news`.
        """
        known = self._known.get(name)
        if known is None:
            return reasons.Seen(None)
        pods = list(known.pods.values())
        if known.job is not None:  # pods of an earlier Job with the same name don't belong to this Job
            uid = known.job["metadata"]["uid"]
            pods = [
                pod for pod in pods if any(owner["uid"] == uid for owner in pod["metadata"].get("ownerReferences", []))
            ]
            uids = [uid, *(pod["metadata"]["uid"] for pod in pods)]
        else:
            uids = []
        pods = [pod if pod["metadata"]["uid"] in known.alive else _vanished(pod) for pod in pods]
        warnings = [event for uid in uids for event in self._warnings.get(uid, {}).values()]
        warnings.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
        return reasons.Seen(
            known.job, sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp"))), warnings
        )

    def watch(self, names: Collection[str], seconds: float) -> list[Update]:
        """Return the updates on the jobs `names`; wait at most `seconds` for the first update."""
        end = time.monotonic() + seconds
        with self._news:
            for name in names:
                known = self._known.setdefault(name, Known())
                if not known.watched:
                    known.watched = True
                    self._follow(name, known)
        self._look_at_nodes(names)
        updates: list[Update] = []
        with self._news:
            while True:
                updates = [update for name in names if (update := self._update(name)) is not None]
                left = end - time.monotonic()
                if updates or left <= 0:
                    return updates
                self._news.wait(left)

    def _follow(self, name: str, known: Known) -> None:
        """Start a Follower for each pod of the job whose container has started.

        The caller must hold `self._news`.
        """
        log = self.log(name)
        if log is None:
            return
        for uid, pod in known.pods.items():
            if uid not in known.followers and uid in known.alive and reasons.began(pod):

                def over(known: Known = known, uid: str = uid) -> bool:
                    return (
                        uid not in known.alive
                        or "terminated" in reasons.status_of(known.pods[uid]).get("state", {})
                        or reasons.ended(known.pods[uid])
                    )

                known.followers[uid] = Follower(self._api, pod["metadata"]["name"], log, self._news, over)
                known.followers[uid].start()

    def _update(self, name: str) -> Update | None:
        """Return the update on one job; None if nothing has changed.

        The caller must hold `self._news`.
        """
        known = self._known[name]
        seen = self._seen(name)
        state = reasons.state_of(seen)
        if state.is_terminal and not all(follower.done for follower in known.followers.values()):
            state = State.RUNNING  # report all text before the end of the job
        text = "".join(follower.take() for follower in known.followers.values())
        note = self._away() or ("" if known.job is None else reasons.note_of(seen, self._asked(known)))
        image = image_id = ""
        if seen.pods:
            asked = seen.pods[-1]["spec"]["containers"][0]["image"]
            image, image_id = reasons.image_of(seen.pods[-1], asked)
        if not text and not state.is_terminal and known.told == (state, note, image_id):
            return None
        known.told = (state, note, image_id)
        return Update(name, state, text, note, image, image_id)

    def _asked(self, known: Known) -> reasons.Asked:
        assert known.job is not None
        return replace(reasons.asked_of(known.job, self._api.namespace), free=known.free or "")

    def _away(self) -> str:
        for informer in self._informers[:2]:
            if informer.away and time.monotonic() - informer.since > AWAY_SECONDS:
                return (
                    f"{informer.away} Running jobs are unaffected, and the launcher continues once the cluster answers."
                )
        return ""

    def _look_at_nodes(self, names: Collection[str]) -> None:
        """For each job whose pod waits for a node, look up once how many GPUs are free.

        The job's note then mentions the free GPUs. If the user has no right to read nodes, the note does not change.
        """
        for name in names:
            with self._news:
                known = self._known[name]
                seen = self._seen(name)
                unplaced = (
                    known.free is None
                    and seen.job is not None
                    and any("PodScheduled" in str(pod["status"].get("conditions")) for pod in seen.pods)
                )
                if not unplaced or reasons.state_of(seen) is not State.PENDING:
                    continue
                requests = self._asked(known).requests
                known.free = ""
            resource = next((key for key in requests if "/" in key), None)
            if resource is not None:
                known.free = free_gpus(self._api, resource, self._cluster)

    def outcome(self, name: str) -> Outcome:
        """Return how the Job ended, according to its pods and its own conditions."""
        with self._news:
            return reasons.outcome_of(self._seen(name))

    # Actions for a launcher.

    def submit(self, task: Task) -> None:
        """Create the Job of `task`, or take over the existing Job that makes the same artifact on the same volume.

        Raise ConfigError if the task reads a file outside the volume. Raise ClusterUnreachable if the cluster does not
        answer. Raise ClusterError if the cluster refuses the Job, or if a Job with its name makes a different artifact.
        """
        owner = submission.run_owner(self._api, self._cluster, self._volume, task.run)
        job = submission.create(self._api, self._cluster, task, owner, self._closing)
        fault(FaultPoint.IN_SUBMIT, task.step)
        with self._news:
            if job["metadata"]["uid"] not in self._jobs.objects:  # the watch may already have reported a newer state
                self._jobs.add(job)
                self._job_changed(job, True)

    def cancel(self, name: str, grace: float) -> None:
        """Delete the Job with its pods.

        `grace` is not used. The pods keep the grace period of their manifest (stage_job.GRACE), because a change of the
        grace period would need the right to delete pods.

        If the cluster does not answer, a thread tries again until the cluster answers.
        """
        if self.state(name).is_terminal:
            return
        try:
            self._api.delete("jobs", name)
        except ClusterUnreachable:
            threading.Thread(target=self._delete_later, args=[name], name=f"delete {name}", daemon=True).start()

    def _delete_later(self, name: str) -> None:
        while not self._closing.wait(AWAY_SECONDS):
            with contextlib.suppress(ClusterUnreachable):
                self._api.delete("jobs", name)
                return

    def remove(self, name: str) -> None:
        """Delete a finished Job with its pods. The job's log file is kept.

        If the cluster does not answer, the finished Job stays until the cluster deletes it some days later
        (stage_job.KEPT).
        """
        with contextlib.suppress(ClusterUnreachable):
            self._api.delete("jobs", name)
        with self._news:
            known = self._known.get(name)
            if known is None:
                return
            known.watched = False
            if known.job is not None:
                self._jobs.drop(known.job["metadata"]["uid"])
                known.job = None
            self._forget_if_nothing_is_left(name)

    def forget_run(self, run: str) -> None:
        """Delete the run's ConfigMap.

        The cluster then deletes the remaining Jobs of the run.
        """
        self._api.delete("configmaps", f"vase-run-{run}")

    def gone(self, pod: str) -> bool:
        """Return True if the pod with the UID `pod` has ended or no longer exists in the namespace.

        Return False if the cluster does not answer.
        """
        try:
            pods = self._api.get(self._api.path("pods"))["items"]
        except ClusterError:
            return False
        return all(reasons.ended(entry) for entry in pods if entry["metadata"]["uid"] == pod)


def _vanished(pod: Manifest) -> Manifest:
    """Return the last known manifest of a deleted pod, marked as failed unless the pod had ended before."""
    if pod["status"].get("phase") in ("Succeeded", "Failed"):
        return pod
    metadata = {"deletionTimestamp": "1970-01-01T00:00:00Z", **pod["metadata"]}
    return {**pod, "metadata": metadata, "status": {**pod["status"], "phase": "Failed"}}
