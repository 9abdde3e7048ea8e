"""Failures on a cluster: the terminal soon shows the cause and the remedy, and the launcher retries if this can
help.
"""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any

import pytest

from tests.e2e.kit import ClusterKit, apply, kubectl, wait_for_line
from tests.pipeline.kit import wait_for

SOON = 10.0  # seconds in which a cause must reach the terminal
# seconds; longer than SOON, because the message at the deadline also contains the cause
DEADLINE = 12


def ended(process: subprocess.Popen[str], code: int, says: str = "") -> str:
    """Assert that the process ends with this exit code and one sentence that contains these words."""
    out, errors = process.communicate(timeout=120)
    assert process.returncode == code, out + errors
    assert "Traceback" not in errors
    assert says in errors, errors
    return out + errors


def asks(kit: ClusterKit, **resources: Any) -> None:
    kit.write_recipe(first={"resources": resources})


# Causes in the cluster: the launcher reports them at once, and waits until the deadline.


def said_soon(kit: ClusterKit, words: str, env: dict[str, str] | None = None) -> str:
    """Run the first step, which can't start. The cause is reported within SOON seconds, the run ends at the deadline,
    and nothing is left.
    """
    process = kit.command("run", kit.recipe, "--to", "first", env=env)
    wait_for_line(process, "first: started")
    line, seconds = wait_for_line(process, words)
    assert seconds < SOON, line
    ended(process, 69, words)
    assert kit.jobs() == []
    return line


def test_a_missing_image_is_reported(kit: ClusterKit) -> None:
    kit.set_cluster(images={"copying": "vasevqa-e2e/nowhere:1"})
    asks(kit, start_deadline=DEADLINE)
    assert "`registry`" in said_soon(kit, "The image vasevqa-e2e/nowhere:1 can't be pulled")


def test_an_invalid_image_name_is_reported(kit: ClusterKit) -> None:
    kit.set_cluster(images={"copying": "Vase/Bad:1"})
    asks(kit, start_deadline=DEADLINE)
    result = kit.run("--to", "first", check=2)
    assert "images.copying: 'Vase/Bad:1' is not the name of an image" in result.stderr
    assert kit.jobs() == []


def test_a_missing_secret_is_reported(kit: ClusterKit) -> None:
    kit.set_cluster(secrets={"MUSEUM_PASSWORD": {"secret": "hub", "key": "token"}})
    asks(kit, start_deadline=DEADLINE)
    assert "create that Secret" in said_soon(kit, 'secret "hub" not found')


def test_a_missing_claim_is_reported(kit: ClusterKit) -> None:
    kit.set_cluster(claim="elsewhere")
    asks(kit, queue_deadline=DEADLINE)
    assert "create it" in said_soon(kit, f"There is no claim elsewhere in namespace {kit.namespace.name}")


def test_an_exhausted_quota_is_reported(kit: ClusterKit) -> None:
    apply(
        [
            {
                "apiVersion": "v1",
                "kind": "ResourceQuota",
                "metadata": {"name": "small", "namespace": kit.namespace.name},
                "spec": {"hard": {"requests.memory": "50Mi"}},
            }
        ]
    )
    wait_for(
        lambda: (
            "50Mi"
            in kubectl("get", "resourcequota", "small", "-n", kit.namespace.name, "-o", "jsonpath={.status.hard}")
        ),
        "the quota to take effect",
    )
    asks(kit, queue_deadline=DEADLINE)
    assert "requests.memory=50Mi" in said_soon(kit, f"the quota of namespace {kit.namespace.name} is exhausted")


def test_a_limit_range_that_forbids_the_pod_is_reported(kit: ClusterKit) -> None:
    limits = [{"type": "Container", "max": {"memory": "50Mi"}}]
    apply(
        [
            {
                "apiVersion": "v1",
                "kind": "LimitRange",
                "metadata": {"name": "small", "namespace": kit.namespace.name},
                "spec": {"limits": limits},
            }
        ]
    )
    asks(kit, queue_deadline=DEADLINE)
    assert "50Mi" in said_soon(kit, f"a LimitRange of namespace {kit.namespace.name} forbids")


def test_a_request_for_too_many_gpus_is_reported(kit: ClusterKit) -> None:
    asks(kit, queue_deadline=DEADLINE, gpus=99)
    line = said_soon(kit, "Insufficient nvidia.com/gpu")
    assert "99 nvidia.com/gpu" in line
    assert "The nodes have" not in line  # the launcher may not read nodes


def test_a_user_who_may_read_nodes_sees_the_free_gpus(kit: ClusterKit, admin: dict[str, str]) -> None:
    kit.set_cluster(namespace=kit.namespace.name)
    asks(kit, queue_deadline=DEADLINE, gpus=99)
    assert " free" in said_soon(kit, "The nodes have", env=admin)


def test_a_request_for_too_much_gpu_memory_is_reported(kit: ClusterKit) -> None:
    asks(kit, queue_deadline=DEADLINE, gpus=1, gpu_memory="1Ti")
    said_soon(kit, "didn't match")


# Causes in the stage or in its node: the class of the failure decides the remedy.


@pytest.mark.timeout(1500)  # eight runs, one after the other
def test_each_exit_code_has_its_own_handling(kit: ClusterKit) -> None:
    for code in (1, 2, 3, 4, 5, 6, 74):
        kit.wish("first", code)
        result = kit.run("--to", "first", check=None)
        assert result.returncode == code, result.stdout + result.stderr
        assert kit.jobs() == []
    assert kit.attempts()["first"] == 7
    kit.wish("first", 75, "data")
    assert kit.run("--to", "first", check=3).stdout.count("Trying again") == 1


def failures(kit: ClusterKit) -> list[tuple[str, bool]]:
    return [(event["failure"], event["retry"]) for event in kit.told() if event["event"] == "attempt-failed"]


def test_memory_is_raised_after_an_out_of_memory_kill(kit: ClusterKit) -> None:
    asks(kit, memory="100Mi")
    kit.wish("first", "memory")
    held = kit.hold("first")
    process = kit.command("run", kit.recipe, "--to", "first")
    kit.wait_until_held("first")
    second = kit.hold("first", "hold-begin")  # only the second attempt waits here, until the test has checked it
    held.unlink()
    wait_for_line(process, "host memory ran out", 120)
    kit.wait_until_held("first", "hold-begin")
    [job] = [job for job in kit.jobs() if job["metadata"]["name"].endswith("-2")]
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == "150Mi"
    second.unlink()
    ended(process, 0)
    assert failures(kit) == [("host memory", True)]


def test_a_bus_error_doubles_the_shared_memory(kit: ClusterKit) -> None:
    kit.wish("first", "bus", "kill", "kill")
    kit.run("--to", "first", check=137)
    assert failures(kit) == [("shared memory", True), ("unknown kill", True), ("unknown kill", False)]
    assert [
        event["raised"]["shm"]
        for event in kit.told()
        if event["event"] == "attempt-failed" and event["failure"] == "shared memory"
    ] == ["2048Mi"]


def evict(kit: ClusterKit, pod: str) -> None:
    """Evict the pod like `kubectl drain`, but don't cordon the node."""
    where = f"/api/v1/namespaces/{kit.namespace.name}/pods/{pod}/eviction"
    for version in ("policy/v1", "policy/v1beta1"):
        review = {"apiVersion": version, "kind": "Eviction", "metadata": {"name": pod, "namespace": kit.namespace.name}}
        done = subprocess.run(
            ["kubectl", "create", "--raw", where, "-f", "-"], input=json.dumps(review), capture_output=True, text=True
        )
        if done.returncode == 0:
            return
    raise AssertionError(done.stderr)


@pytest.mark.parametrize("how", ["drained", "pod deleted", "pod killed at once", "job deleted"])
def test_an_evicted_or_deleted_pod_is_replaced(kit: ClusterKit, how: str) -> None:
    held = kit.hold("first")
    process = kit.command("run", kit.recipe, "--to", "first")
    kit.wait_until_held("first")
    (kit.control / "first.hold.reached").unlink()
    pod = kit.wait_for_pod("first")
    if how == "drained":
        evict(kit, pod)
    elif how == "pod deleted":
        kubectl("delete", "pod", pod, "-n", kit.namespace.name, "--wait=false")
    elif how == "pod killed at once":
        kubectl("delete", "pod", pod, "-n", kit.namespace.name, "--wait=false", "--grace-period=0", "--force")
    else:
        kubectl("delete", "job", kit.jobs()[0]["metadata"]["name"], "-n", kit.namespace.name, "--wait=false")
    kit.wait_until_held("first")
    held.unlink()
    ended(process, 0)
    assert kit.attempts("wrote:words-alpha.txt") == {"first": 1}  # the second attempt resumed after the first attempt
    # no retry if the cluster itself created another pod of the same Job
    assert failures(kit) in ([("transient", True)], [])
    kit.assert_tidy()


def test_a_stage_that_fills_the_disk_of_its_node_is_evicted(kit: ClusterKit) -> None:
    asks(kit, ephemeral_storage="16Mi")
    kit.wish("first", "scratch")
    process = kit.command("run", kit.recipe, "--to", "first")
    line, _ = wait_for_line(process, "was evicted", 180)
    assert "evicted" in line
    ended(process, 0)


def test_a_deadline_of_the_run(kit: ClusterKit) -> None:
    kit.hold("first")
    asks(kit, run_deadline=3)
    ended(kit.command("run", kit.recipe, "--to", "first"), 75, "run_deadline")
    kit.assert_nothing_runs()


def test_a_deadline_of_the_cluster(kit: ClusterKit) -> None:
    kit.hold("first")
    process = kit.command("run", kit.recipe, "--to", "first")
    kit.wait_until_held("first")
    kit.wait_until_running("first")
    kubectl(
        "patch",
        "job",
        kit.jobs()[0]["metadata"]["name"],
        "-n",
        kit.namespace.name,
        "-p",
        '{"spec": {"activeDeadlineSeconds": 1}}',
    )
    ended(process, 75, "stopped by the cluster at a deadline")
    kit.assert_nothing_runs()


# After a request to stop, a run leaves either nothing or all its jobs (with --detach).


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_stopped_run_leaves_no_pod(kit: ClusterKit, number: signal.Signals) -> None:
    kit.hold("first")
    process = kit.command("run", kit.recipe)
    kit.wait_until_held("first")
    kit.wait_until_running("first")
    process.send_signal(number)
    ended(process, 128 + number)
    kit.assert_nothing_runs()


def test_cancel_from_another_terminal_and_clean(kit: ClusterKit) -> None:
    kit.hold("first")
    process = kit.command("run", kit.recipe)
    kit.wait_until_held("first")
    kit.wait_until_running("first")
    kit.call("cancel")
    ended(process, 130)
    kit.assert_nothing_runs()
    assert len(kit.configmaps()) == 1
    kit.call("clean", kit.runs()[0].name, "--yes")
    assert kit.configmaps() == []
    assert kit.runs() == []


def test_detached_jobs_continue_and_are_adopted(kit: ClusterKit) -> None:
    held = kit.hold("first")
    process = kit.command("run", kit.recipe, "--detach")
    kit.wait_until_held("first")
    kit.wait_until_running("first")
    process.send_signal(signal.SIGINT)
    assert "Detached" in ended(process, 0)
    assert [pod["status"]["phase"] for pod in kit.pods()] == ["Running"]
    again = kit.command("run", kit.recipe)
    wait_for_line(again, "found running, adopted")
    held.unlink()
    ended(again, 0)
    assert kit.attempts()["first"] == 1


def test_a_detached_run_is_cancelled(kit: ClusterKit) -> None:
    kit.hold("first")
    process = kit.command("run", kit.recipe, "--detach")
    kit.wait_until_held("first")
    kit.wait_until_running("first")
    process.send_signal(signal.SIGINT)
    ended(process, 0)
    kit.call("cancel")
    kit.assert_nothing_runs()


# Mistakes that are reported before anything starts.


def test_inputs_outside_the_volume_are_refused(kit: ClusterKit) -> None:
    outside = kit.namespace.volume.parent / "outside"
    outside.mkdir()
    (outside / "a.txt").write_text("a")
    result = kit.run("--input", f"words={outside}", "--to", "first", check=2)
    assert "vasevqa upload" in result.stderr
    assert kit.jobs() == []


def test_without_the_volume_the_error_names_submit(kit: ClusterKit) -> None:
    result = kit.run("--volume", "/nowhere/at/all", check=2)
    assert "vasevqa submit" in result.stderr


def test_a_volume_that_differs_from_the_claim_is_detected(kit: ClusterKit) -> None:
    kit.set_cluster(claim_path="inner")
    (kit.namespace.volume / "inner").mkdir(mode=0o777)
    asks(kit, start_deadline=60)  # the deadline must be longer than the start of Python
    result = kit.run("--to", "first", check=2)
    assert "this is not the launcher's volume" in result.stderr


def test_missing_rights_are_reported(kit: ClusterKit) -> None:
    kubectl("delete", "rolebinding", "launcher", "-n", kit.namespace.name)
    result = kit.run(check=69)
    assert f"Namespace {kit.namespace.name}" in result.stderr
    assert "forbidden" in result.stderr


def test_a_missing_cluster_is_reported(kit: ClusterKit) -> None:
    broken = kit.namespace.volume.parent / "broken"
    broken.write_text(kit.namespace.kubeconfig.read_text().replace("server: https://", "server: https://127.0.0.1:9/#"))
    assert "doesn't answer" in kit.run(check=69, env={"KUBECONFIG": str(broken)}).stderr
    assert "KUBECONFIG" in kit.run(check=69, env={"KUBECONFIG": "/nowhere"}).stderr
