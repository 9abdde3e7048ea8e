"""Crash tests on a cluster: after any kill at any time, the same command finishes with the result of an undisturbed
run.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit import ClusterKit, apply, cluster_kit, wait_for_line
from tests.pipeline.kit import DRILL, FIRST, STEPS
from vasevqa.backends.base import Task
from vasevqa.backends.kubernetes.stage_job import render_job
from vasevqa.faults import FaultPoint
from vasevqa.pipeline.events import parse

Contents = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def undisturbed(image: str) -> Iterator[Contents]:
    """The artifacts of an undisturbed run."""
    folder = Path(tempfile.mkdtemp(prefix="vase-e2e-", dir=os.environ.get("VASEVQA_E2E_FOLDER", "/var/tmp")))
    folder.chmod(0o755)
    before = os.umask(0)
    with cluster_kit(folder, image) as kit:
        kit.run()
        contents = kit.contents()
    os.umask(before)
    shutil.rmtree(folder, ignore_errors=True)
    assert len(contents) == 4
    yield contents


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """The results of the crash tests, printed at the end."""
    rows: list[str] = []
    yield rows
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n\n{'the launcher is killed':<16} {'at step':<7} {'adopted after':>13}  {'begun':>5}  result")
        print("\n".join(rows))


def assert_whole(kit: ClusterKit, undisturbed: Contents) -> None:
    """Assert that the result is that of an undisturbed run, that no event is repeated, and that nothing is left
    over.
    """
    assert kit.contents() == undisturbed
    assert set(kit.attempts("wrote:words-alpha.txt").values()) <= {1}
    assert kit.attempts("ends") == dict.fromkeys(STEPS, 1)
    for step in STEPS:
        logs = [list(parse(log.read_text().split("\n"))) for log in kit.runs()[0].path.glob(f"logs/{step}-*.log")]
        # If another launcher's pod has just sealed the artifact, a new pod reports this and does nothing.
        whole = [log for log in logs if any(e["event"] == "sealed" and not e.get("already") for e in log)]
        assert len(whole) <= 1  # no event in this run if another run submitted the job
        for log in whole:
            told = Counter(event["event"] for event in log)
            assert {kind: told[kind] for kind in ("started", "phase", "summary", "sealed")} == {
                "started": 1,
                "phase": 1,
                "summary": 1,
                "sealed": 1,
            }
    kit.assert_tidy()


def adopted_after(kit: ClusterKit, began: float) -> str:
    """Return the time from the start of the second launcher until it adopted the running job."""
    times = [
        event["time"] - began for event in kit.told() if event["event"] == "step-adopted" and event["time"] > began
    ]
    return f"{min(times):.2f} s" if times else "-"


@pytest.mark.parametrize("point", FaultPoint, ids=lambda point: point.value)
def test_a_restarted_launcher_finishes_the_run_after_a_kill(
    kit: ClusterKit, undisturbed: Contents, table: list[str], point: FaultPoint
) -> None:
    step, begun = DRILL[point]
    if point is FaultPoint.DURING_RETRY:
        kit.wish(step, "kill")
    killed = kit.run(check=None, env={"VASEVQA_FAULT": f"{point.value}:{step}" if step else point.value})
    assert killed.returncode == -signal.SIGKILL, f"{point} was not reached: {killed.stdout}{killed.stderr}"
    assert kit.runs()[0].state == "interrupted"
    began = time.time()
    kit.run()
    assert_whole(kit, undisturbed)
    if step:
        assert kit.attempts()[step] == begun
    assert [run.state for run in kit.runs()] == ["finished"]
    table.append(
        f"{point.value:<22} {step or '-':<7} {adopted_after(kit, began):>13}  {kit.attempts()[step] if step else 1:>5} "
        " as undisturbed"
    )


@pytest.mark.parametrize("where", ["pending", "hold-begin", "hold"])
def test_waiting_and_running_jobs_are_adopted(
    kit: ClusterKit, undisturbed: Contents, table: list[str], where: str
) -> None:
    held = kit.hold("first", "hold" if where == "pending" else where)
    process = kit.command("run", kit.recipe)
    if where == "pending":
        kit.wait_for_pod("first")
    else:
        kit.wait_until_held("first", where)
    process.kill()
    process.communicate()
    began = time.time()
    again = kit.command("run", kit.recipe)
    wait_for_line(again, "found running, adopted")
    held.unlink()
    out, errors = again.communicate(timeout=120)
    assert again.returncode == 0, out + errors
    assert kit.attempts() == dict.fromkeys(STEPS, 1)
    assert_whole(kit, undisturbed)
    table.append(
        f"{'while ' + where:<22} {'first':<7} {adopted_after(kit, began):>13}  {kit.attempts()['first']:>5}  as"
        " undisturbed"
    )


def test_two_simultaneous_launchers_make_each_artifact_once(kit: ClusterKit, undisturbed: Contents) -> None:
    processes = [kit.command("run", kit.recipe) for _ in range(2)]
    for process in processes:
        out, errors = process.communicate(timeout=180)
        assert process.returncode == 0, out + errors
    assert kit.attempts() == dict.fromkeys(STEPS, 1)
    assert_whole(kit, undisturbed)
    assert {run.state for run in kit.runs()} == {"finished"}


def test_two_launchers_and_a_crash_do_not_change_the_output(kit: ClusterKit) -> None:
    kit.wish("first", "chatter")
    held = kit.hold("first", "hold-begin")
    first = kit.command("run", kit.recipe, "--to", "first")
    kit.wait_until_held("first", "hold-begin")
    second = kit.command("run", kit.recipe, "--to", "first")
    wait_for_line(second, "found running, adopted")
    held.unlink()
    kit.wait_for_pod("first")
    first.kill()
    first.communicate()
    out, errors = second.communicate(timeout=60)
    assert second.returncode == 0, out + errors
    lines = kit.runs()[0].log("first", 1).read_text().splitlines()
    assert [line for line in lines if line.startswith("line ")] == [f"line {number}" for number in range(3000)]
    assert [len(line) for line in lines if line.startswith("long ")] == [50_005]


def test_a_run_survives_a_restart_of_the_api_server(kit: ClusterKit, undisturbed: Contents) -> None:
    restart = os.environ.get("VASEVQA_E2E_RESTART_API")
    if not restart:
        pytest.skip("VASEVQA_E2E_RESTART_API names no command that restarts the API server")
    held = kit.hold("left")
    process = kit.command("run", kit.recipe)
    kit.wait_until_held("left")
    subprocess.run(restart, shell=True, check=True, capture_output=True, timeout=120)
    held.unlink()
    out, errors = process.communicate(timeout=180)
    assert process.returncode == 0, out + errors
    assert kit.attempts() == dict.fromkeys(STEPS, 1)
    assert_whole(kit, undisturbed)


def test_a_run_resumes_on_a_volume_that_was_full(image: str, place: Path) -> None:
    disk = place / "volume"
    disk.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "tmpfs", disk], capture_output=True
        ).returncode
        != 0
    ):
        pytest.skip("mounting a small disk needs root")
    try:
        with cluster_kit(place, image) as kit:
            held = kit.hold("first")
            process = kit.command("run", kit.recipe, "--to", "first")
            kit.wait_until_held("first")
            with pytest.raises(OSError, match="No space left"), open(disk / "ballast", "wb", buffering=0) as stream:
                while True:
                    stream.write(b"x" * 4096)
            held.unlink()
            out, errors = process.communicate(timeout=120)
            assert process.returncode == 74, out + errors
            assert "full" in errors
            (disk / "ballast").unlink()
            kit.run("--to", "first")
            assert len(kit.contents()) == 1
            kit.assert_tidy()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_launcher_in_another_pod_takes_over_from_a_deleted_launcher(kit: ClusterKit, undisturbed: Contents) -> None:
    held = kit.hold("first")
    process = kit.command("run", kit.recipe, env={"VASEVQA_POD_UID": "11111111-2222-3333-4444-555555555555"})
    kit.wait_until_held("first")
    process.kill()
    process.communicate()
    lease = kit.runs()[0].lease
    lease.write_text(json.dumps({**json.loads(lease.read_text()), "host": "elsewhere", "namespace": "pid:[1]"}))
    began = time.time()
    again = kit.command("run", kit.recipe, env={"VASEVQA_POD_UID": "99999999-2222-3333-4444-555555555555"})
    wait_for_line(again, "found running, adopted")
    assert time.time() - began < 30  # less than the minute after which a silent lease expires
    held.unlink()
    out, errors = again.communicate(timeout=120)
    assert again.returncode == 0, out + errors
    assert len(kit.runs()) == 1
    assert_whole(kit, undisturbed)


def test_a_job_of_another_volume_is_not_adopted(kit: ClusterKit) -> None:
    [step] = kit.plan(selection=FIRST).steps
    fields = {
        "run": "other",
        "step": "first",
        "stage": "copying",
        "key": step.artifact.key,
        "attempt": 1,
        "arguments": (),
        "resources": step.resources,
    }
    task = Task(**fields, volume=kit.volume.root, log=kit.volume.root / "log")
    job = render_job(task, kit.cluster.model_copy(update={"claim": "another"}))
    job["metadata"]["namespace"] = kit.namespace.name
    apply([job])
    message = f"The Job {task.name} in namespace {kit.namespace.name} belongs to another volume or artifact"
    assert message in kit.run("--to", "first", check=69).stderr
