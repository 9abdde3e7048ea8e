"""Measure how much longer a step takes on a cluster than a bare Job with the same pod.

kubectl creates the bare Job directly, without a launcher.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path

from tests.e2e.kit import ClusterKit, apply, cluster_kit, copying_image, kubectl
from vasevqa.backends.base import Task
from vasevqa.backends.kubernetes.stage_job import render_job
from vasevqa.spec import Resources

Row = tuple[str, float, str]


def bare(kit: ClusterKit, number: int) -> float:
    """Run a bare Job with the pod of a step, and return the Job's duration in seconds.

    The duration ends when kubectl reports that the Job is complete.
    """
    words = kit.root / "words"
    task = Task(
        run="bench",
        step="bare",
        stage="copying",
        key=f"{number:032}",
        attempt=number,
        arguments=(
            "--words",
            str(words),
            "--output-dir",
            str(kit.namespace.volume / f"bare-{number}"),
            "--json-events",
        ),
        resources=Resources(cpus=0.1, memory="100Mi"),
        volume=kit.namespace.volume,
        log=kit.namespace.volume / "bare.log",
    )
    job = render_job(task, kit.cluster)
    job["metadata"]["namespace"] = kit.namespace.name
    began = time.perf_counter()
    apply([job])
    kubectl("wait", f"job/{task.name}", "-n", kit.namespace.name, "--for=condition=complete", "--timeout=60s")
    return time.perf_counter() - began


def step(kit: ClusterKit, number: int) -> float:
    """Run a step, and return the seconds from its start to the commit of its artifact, according to the run's log."""
    kit.run("--to", "first", "--set", f"first.ending=-n{number}")
    return float([event["seconds"] for event in kit.told() if event["event"] == "step-done" and not event["hit"]][-1])


def cluster_rows(base: Path, quick: bool) -> list[Row]:
    """Measure bare Jobs and steps in turn on the cluster of KUBECONFIG. Return [] if KUBECONFIG is not set."""
    if not os.environ.get("KUBECONFIG"):
        print("no KUBECONFIG: the launcher's overhead on a cluster was not measured")
        return []
    before = os.umask(0)
    try:
        with cluster_kit(base / "cluster", copying_image()) as kit:
            pairs = [(bare(kit, number), step(kit, number)) for number in range(1, 4 if quick else 8)]
    finally:
        os.umask(before)
    plain, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    shown = json.dumps([[round(value, 2) for value in pair] for pair in pairs])
    return [
        (
            "Kubernetes: seconds that a step takes beyond a bare Job",
            ours - plain,
            (f"{ours:.2f} against {plain:.2f} s, medians of {shown}, including two starts of kubectl; at most 1.5"),
        )
    ]
