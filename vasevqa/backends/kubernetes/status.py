"""Find out a job's state, what the job waits for, and how it ended.

All functions are pure. They take objects of the cluster as mappings, and return states and sentences.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from vasevqa.backends.base import Outcome, State
from vasevqa.backends.kubernetes.pod_template import Manifest
from vasevqa.backends.kubernetes.stage_job import CONTAINER

LOST_SECONDS = 60.0  # a pod that exists this long after its grace period has lost its node
# Reasons that the kubelet or a controller gives for the removal of a pod from its node.
TAKEN = {
    "Evicted": "evicted",
    "Preempted": "preempted",
    "Preempting": "preempted",
    "Terminated": "its node shut down",
    "Shutdown": "its node shut down",
    "NodeShutdown": "its node shut down",
    "NodeLost": "its node was lost",
    "NodeAffinity": "the node rejected the pod",
    "UnexpectedAdmissionError": "the node rejected the pod",
    "PreemptionByScheduler": "preempted",
    "DeletionByTaintManager": "its node was drained or was lost",
    "EvictionByEvictionAPI": "evicted",
    "DeletionByPodGC": "its node was lost",
    "TerminationByKubelet": "the node stopped the pod",
}
IMAGE = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
}
STARTING = ("ContainerCreating", "PodInitializing")
CANT_START = {*IMAGE, "CreateContainerConfigError"}
PASSING = ("No API token found",)  # a problem right after a namespace was created; it disappears without help
MOUNTS = {"FailedMount", "FailedAttachVolume"}
LONGEST = 400  # maximum length in characters of a message of the cluster


@dataclass(frozen=True)
class Seen:
    """What the cluster shows about a job.

    `job` is None if the Job was deleted. `pods` are the Job's pods, oldest first. `warnings` are the events of type
    Warning about the Job and its pods.
    """

    job: Manifest | None
    pods: Sequence[Manifest] = ()
    warnings: Sequence[Manifest] = ()


@dataclass(frozen=True)
class Asked:
    """What a job requests from the cluster, for use in messages."""

    image: str
    requests: Mapping[str, str] = field(default_factory=dict)
    namespace: str = ""
    claim: str = ""
    queue: str = ""
    free: str = ""  # the GPUs of the nodes, if this launcher may read nodes


def asked_of(job: Manifest, namespace: str) -> Asked:
    """Return what `job` requests, according to its manifest."""
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    labels = job["metadata"].get("labels", {})
    claim = next(
        (
            volume["persistentVolumeClaim"]["claimName"]
            for volume in pod.get("volumes", [])
            if "persistentVolumeClaim" in volume
        ),
        "",
    )
    requests = {**container["resources"].get("limits", {}), **container["resources"].get("requests", {})}
    return Asked(container["image"], requests, namespace, claim, labels.get("kueue.x-k8s.io/queue-name", ""))


def status_of(pod: Manifest) -> Manifest:
    """Return the status of the pod's stage container; empty before the kubelet reports it."""
    statuses = pod.get("status", {}).get("containerStatuses") or []
    return next((status for status in statuses if status["name"] == CONTAINER), {})


def began(pod: Manifest) -> bool:
    """Return True if the container runs or has run. Only such a container has a log."""
    state = status_of(pod).get("state", {})
    return "running" in state or bool(
        state.get("terminated", {}).get("containerID") or state.get("terminated", {}).get("startedAt")
    )


def ended(pod: Manifest, now: datetime | None = None) -> bool:
    """Return True if the pod has ended, or counts as ended.

    A pod that is being deleted counts as ended if its container can't start. It also counts as ended if it still exists
    LOST_SECONDS after its grace period. The pod is then lost, because its node no longer answers.
    """
    if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return True
    gone_by = pod["metadata"].get("deletionTimestamp")
    if gone_by is not None and status_of(pod).get("state", {}).get("waiting", {}).get("reason") in CANT_START:
        return True  # the container never starts; the kubelet reports this late
    return gone_by is not None and ((now or datetime.now(UTC)) - moment(gone_by)).total_seconds() > LOST_SECONDS


def moment(stamp: str) -> datetime:
    """Convert a Kubernetes timestamp to a datetime in UTC; the timestamp may have a fraction of any length."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return datetime.strptime(f"{whole}.{(fraction or '0')[:6]}", "%Y-%m-%dT%H:%M:%S.%f").replace(tzinfo=UTC)


def condition(thing: Manifest, kind: str) -> Manifest:
    """Return the condition `kind` of a Job or pod, or an empty mapping if this condition is not true."""
    matching = (
        entry
        for entry in thing.get("status", {}).get("conditions") or []
        if entry["type"] == kind and entry["status"] == "True"
    )
    return next(matching, {})


def state_of(seen: Seen, now: datetime | None = None) -> State:
    """Return the job's state.

    A job is finished if all its pods have ended, and if one of them has succeeded or the Job has the condition Complete
    or Failed.
    """
    alive = [pod for pod in seen.pods if not ended(pod, now)]
    if seen.job is None:
        return State.RUNNING if alive else State.GONE
    if not alive:
        if any(pod["status"].get("phase") == "Succeeded" for pod in seen.pods):
            return State.FINISHED
        if condition(seen.job, "Complete") or condition(seen.job, "Failed"):
            return State.FINISHED
        if seen.job["spec"].get("suspend"):  # a queue has suspended the Job, and may admit it again
            return State.PENDING
    # Between the failure of a pod and the Job's condition, the state does not change: another pod may follow.
    newest = alive[-1] if alive else (seen.pods[-1] if seen.pods else None)
    if newest is None:
        return State.PENDING
    if began(newest) or newest["status"].get("phase") in ("Running", "Failed"):
        return State.RUNNING
    return State.STARTING if newest["spec"].get("nodeName") else State.PENDING


def note_of(seen: Seen, asked: Asked) -> str:
    """Return sentences that say what the job waits for and what to do; empty if there is nothing to report."""
    if seen.job is None:
        return ""
    newest = next((pod for pod in reversed(seen.pods) if not ended(pod)), None)
    if newest is None:
        return "" if seen.pods and not seen.job["spec"].get("suspend") else _no_pod(seen, asked)
    if not newest["spec"].get("nodeName"):
        return _no_place(newest, asked)
    if began(newest):
        return ""
    return _no_start(newest, seen, asked)


def _no_pod(seen: Seen, asked: Asked) -> str:
    assert seen.job is not None
    if seen.job["spec"].get("suspend"):
        return f"The Job waits in the queue {asked.queue or 'of the cluster'} to be admitted."
    messages = [str(event.get("message", "")) for event in seen.warnings if event.get("reason") == "FailedCreate"]
    message = next((text for text in reversed(messages) if not any(word in text for word in PASSING)), "")
    if not message:
        return ""
    why = short(re.sub(r'^Error creating: (pods "[^"]*" is forbidden: )?', "", message))
    if "exceeded quota" in message:
        return (
            f"No pod was created: the quota of namespace {asked.namespace} is exhausted ({why}); free part of the"
            " quota, request less, or ask for a larger quota."
        )
    if "maximum" in message or "minimum" in message:
        return (
            f"No pod was created: a LimitRange of namespace {asked.namespace} forbids the requested resources ({why});"
            " change the step's resources."
        )
    if "PodSecurity" in message or "security" in message.lower():
        return f"No pod was created: a security policy forbids it ({why}); ask the cluster's administrator."
    return f"No pod was created ({why}); fix the cause, and the step starts by itself."


def _no_place(pod: Manifest, asked: Asked) -> str:
    conditions = pod.get("status", {}).get("conditions") or []
    scheduled = next(
        (entry for entry in conditions if entry["type"] == "PodScheduled" and entry["status"] == "False"), None
    )
    if scheduled is None:
        return ""
    message = short(str(scheduled.get("message", "")))
    if scheduled.get("reason") == "SchedulingGated":
        return f"The Job waits in the queue {asked.queue or 'of the cluster'} to be admitted."
    if "persistentvolumeclaim" in message.lower() and ("not found" in message or "being deleted" in message):
        return (
            f"There is no claim {asked.claim} in namespace {asked.namespace}; create it, or name another `claim` in the"
            " Cluster file."
        )
    if "unbound immediate PersistentVolumeClaims" in message:
        return f"The claim {asked.claim} has no volume yet ({message}); see `kubectl describe pvc {asked.claim}`."
    wants = ", ".join(f"{amount} {name}" for name, amount in sorted(asked.requests.items()))
    free = f" The nodes have: {asked.free}." if asked.free else ""
    return (
        f"The pod is not scheduled yet: {message}. It requests {wants}.{free} It starts once a node has enough free"
        " resources; to start it sooner, request less in the recipe's resources."
    )


def _no_start(pod: Manifest, seen: Seen, asked: Asked) -> str:
    waiting = status_of(pod).get("state", {}).get("waiting", {})
    reason, message = str(waiting.get("reason", "")), short(str(waiting.get("message", "")))
    if reason in IMAGE:
        return (
            f"The image {asked.image} can't be pulled ({message or reason}); push it, or correct `registry`, `tag`,"
            " `images` or `pull_secrets` in the Cluster file."
        )
    if reason == "CreateContainerConfigError":
        what = (
            "create that Secret, or change `secrets` in the Cluster file"
            if "secret" in message.lower()
            else "fix the cause"
        )
        return f"Its container can't be created ({message}); {what}."
    if reason in ("CreateContainerError", "RunContainerError", "CrashLoopBackOff"):
        return f"Its container can't be started ({message or reason})."
    mounts = [
        event
        for event in seen.warnings
        if event.get("reason") in MOUNTS and event.get("involvedObject", {}).get("uid") == pod["metadata"]["uid"]
    ]
    if mounts:
        return (
            f"Its volumes can't be mounted ({short(str(mounts[-1].get('message', '')))}); check the claim"
            f" {asked.claim} and its volume."
        )
    sandbox = [event for event in seen.warnings if event.get("reason") == "FailedCreatePodSandBox"]
    if sandbox:
        return f"The node can't create its pod ({short(str(sandbox[-1].get('message', '')))})."
    return ""


def trouble(pod: Manifest) -> str:
    """Return the cluster's reason why a pod does not run; empty if nothing is wrong with the pod.

    If an image can't be pulled, the text also says what to check.
    """
    status = pod.get("status", {})
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in IMAGE:
            return (
                f"the image {container['image']} can't be pulled ({waiting.get('message') or waiting['reason']}); check"
                " `registry`, `tag` and `pull_secrets`"
            )
        if waiting.get("reason") and waiting["reason"] not in STARTING:
            return f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
    for entry in status.get("conditions") or []:
        if entry["type"] == "PodScheduled" and entry["status"] == "False":
            return f"it can't be scheduled ({entry.get('message', entry.get('reason', ''))})"
    return str(status.get("message") or "")


def hopeless(pod: Manifest) -> bool:
    """Return True if the pod can never start, because an image can't be pulled or a setting is missing."""
    for container in pod.get("status", {}).get("containerStatuses") or []:
        waiting = ((container.get("state") or {}).get("waiting") or {}).get("reason", "")
        if waiting in CANT_START:
            return True
    return False


def short(message: str) -> str:
    """Return a message of the cluster on one line and without a final full stop, for use within a sentence.

    The result has at most `LONGEST` characters.
    """
    line = " ".join(message.split()).rstrip(".")
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def outcome_of(seen: Seen) -> Outcome:
    """Return how a job ended, according to the Job's pods and conditions."""
    failed = condition(seen.job or {}, "Failed")
    if any(pod["status"].get("phase") == "Succeeded" for pod in seen.pods):
        return Outcome(0)
    if failed.get("reason") == "DeadlineExceeded":
        return Outcome(None, message=short(str(failed.get("message", ""))), overdue=True)
    pod = seen.pods[-1] if seen.pods else None
    if pod is None:
        return Outcome(None, message="its pod vanished", transient=True)
    end = status_of(pod).get("state", {}).get("terminated", {})
    code = end.get("exitCode")
    message = short(str(end.get("message") or pod["status"].get("message") or ""))
    if end.get("reason") == "OOMKilled":
        return Outcome(code, oom=True)
    how = _taken(pod)
    # A stage that ended before its pod was removed has reported the reason.
    if how and code in (None, 137, 143):
        return Outcome(code, message=f"{how}{f': {message}' if message else ''}", transient=True)
    if code is None:
        return Outcome(None, message="its pod vanished", transient=True)
    if end.get("reason") in ("StartError", "ContainerCannotRun"):
        return Outcome(126, message=f"it can't be started: {message}")
    return Outcome(code, message=message)


def _taken(pod: Manifest) -> str:
    """Return the reason why the pod was removed from its node; empty if the pod was not removed."""
    reason = str(pod["status"].get("reason") or "")
    if reason in TAKEN or reason.startswith("OutOf"):
        return TAKEN.get(reason, "its node had too few free resources")
    disrupted = condition(pod, "DisruptionTarget")
    if disrupted:
        return TAKEN.get(str(disrupted.get("reason")), str(disrupted.get("reason")))
    return "its pod was deleted by a drain or by a user" if pod["metadata"].get("deletionTimestamp") else ""


def image_of(pod: Manifest, asked: str) -> tuple[str, str]:
    """Return the image that the pod runs, as a reference with a digest and as the id that the node uses.

    The reference is empty if the image has no digest, or if its repository is not the repository of `asked`.
    """
    known = str(status_of(pod).get("imageID", "")).removeprefix("docker-pullable://")
    repository, _, digest = known.partition("@")
    return (known if digest and full_name(repository) == full_name(re.split(r"@|:[^/]*$", asked)[0]) else "", known)


def full_name(repository: str) -> str:
    """Return the full name of a repository, including the registry that a short name omits."""
    first, slash, _ = repository.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return repository
    return f"docker.io/{repository}" if slash else f"docker.io/library/{repository}"
