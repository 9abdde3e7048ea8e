"""Stages in real containers: adoption, limits, classes of failures, stops, and removal."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import containers
from tests.backends.docker_kit import DockerKit, small_task
from tests.pipeline.kit import ROOT, STEPS, wait_for
from vasevqa.backends.base import State
from vasevqa.backends.cluster import Cluster
from vasevqa.backends.docker.backend import DockerBackend
from vasevqa.faults import FaultPoint

SOMEBODY = 12345


def test_a_run_in_docker_gives_the_local_results_and_leaves_no_container(
    kit: DockerKit, undisturbed: dict[str, dict[str, Any]]
) -> None:
    out = kit.docker().stdout
    assert kit.contents() == undisturbed
    assert "last: done" in out
    kit.assert_tidy()
    [run] = kit.runs()
    image = containers.engine().images.get(containers.copying_image()).id
    assert [event["image"] for event in run.events.read() if event["event"] == "step-started"] == [image] * 4
    assert kit.artifacts()[0].record()["image"] == image
    assert '"event": "sealed"' in run.log("last", 1).read_text()
    assert "Nothing to do" in kit.docker().stdout


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


def as_somebody(kit: DockerKit, groups: str) -> subprocess.CompletedProcess[str]:
    """Run `vasevqa run words.yaml --backend docker --to first` as a user who owns the kit's folder and may read
    Python's files.
    """
    for path in (kit.root, *kit.root.rglob("*")):
        os.chown(path, SOMEBODY, SOMEBODY)
    for parent in kit.root.parents:  # only pytest's own user can read its folders
        if not parent.stat().st_mode & stat.S_IXOTH:
            parent.chmod(parent.stat().st_mode | stat.S_IXOTH)
    become = [
        "setpriv",
        f"--reuid={SOMEBODY}",
        f"--regid={SOMEBODY}",
        groups,
        "--inh-caps=+dac_read_search",
        "--ambient-caps=+dac_read_search",
    ]
    words = [
        sys.executable,
        "-m",
        "tests.pipeline.drive",
        "run",
        kit.recipe,
        "--to",
        "first",
        "--backend",
        "docker",
        "--cluster",
        kit.cluster_file,
    ]
    environment = {**os.environ, "VASEVQA_VOLUME": str(kit.volume.root), "HOME": str(kit.root)}
    return subprocess.run(
        [*become, *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


@needs_root
def test_files_belong_to_the_user_who_started_the_run(kit: DockerKit) -> None:
    result = as_somebody(kit, f"--groups={Path('/var/run/docker.sock').stat().st_gid}")
    assert result.returncode == 0, result.stderr
    [first] = kit.volume.complete("first")
    assert {path.stat().st_uid for path in kit.volume.root.rglob("*")} == {SOMEBODY}
    assert (first.path / "words-alpha.txt").read_text() == "alpha"


@needs_root
def test_a_user_without_permission_for_docker_gets_one_sentence(kit: DockerKit) -> None:
    result = as_somebody(kit, "--clear-groups")
    assert result.returncode == 69
    assert "You may not use the Docker engine" in result.stderr


def test_a_stage_can_write_only_to_its_permitted_folders(kit: DockerKit, engine: Any) -> None:
    held = kit.hold("first")
    process = kit.start("--to", "first")
    kit.wait_until_held("first")
    [container] = [
        entry for entry in engine.containers.list() if entry.labels.get("vasevqa.log", "").startswith(str(kit.root))
    ]
    host = container.attrs["HostConfig"]
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["SecurityOpt"], host["Privileged"]) == (
        True,
        ["ALL"],
        ["no-new-privileges"],
        False,
    )
    assert container.attrs["Config"]["User"] == f"{os.getuid()}:{os.getgid()}"
    for place in ("/app/x", "/etc/x", str(kit.root / "words/x")):
        code, text = container.exec_run(["touch", place])
        assert code != 0, place
        assert b"Read-only file system" in text
    assert container.exec_run(["touch", "/tmp/x"])[0] == 0
    held.unlink()
    assert process.wait(60) == 0


@pytest.mark.parametrize(
    "point",
    [
        FaultPoint.BEFORE_SUBMIT,
        FaultPoint.IN_SUBMIT,
        FaultPoint.AFTER_SUBMIT,
        FaultPoint.WHILE_RUNNING,
        FaultPoint.BEFORE_COMMIT,
    ],
)
def test_a_restarted_launcher_finishes_the_run_after_a_kill(
    kit: DockerKit, undisturbed: dict[str, dict[str, Any]], point: FaultPoint
) -> None:
    killed = kit.docker(check=None, env={"VASEVQA_FAULT": f"{point.value}:left"})
    assert killed.returncode == -signal.SIGKILL, f"{point} was not reached: {killed.stdout}{killed.stderr}"
    kit.docker()
    assert kit.contents() == undisturbed
    assert kit.attempts("ends") == dict.fromkeys(STEPS, 1)
    assert [run.state for run in kit.runs()] == ["finished"]
    kit.assert_tidy()


def test_a_running_container_is_adopted_with_its_complete_log(
    kit: DockerKit, undisturbed: dict[str, dict[str, Any]]
) -> None:
    held = kit.hold("first")
    process = kit.start()
    kit.wait_until_held("first")
    process.kill()
    process.communicate()
    again = kit.start()
    wait_for(lambda: kit.said("step-adopted"), "the container to be adopted")
    held.unlink()
    out, errors = again.communicate(timeout=60)
    assert again.returncode == 0, errors
    assert "found running" in out
    assert kit.attempts() == dict.fromkeys(STEPS, 1)
    assert kit.contents() == undisturbed
    lines = kit.runs()[0].log("first", 1).read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert [event for event in events if event != "progress"] == ["started", "phase", "summary", "sealed"]


def test_two_simultaneous_launchers_make_each_artifact_once(
    kit: DockerKit, undisturbed: dict[str, dict[str, Any]]
) -> None:
    for process in [kit.start() for _ in range(2)]:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert kit.attempts() == dict.fromkeys(STEPS, 1)
    assert kit.contents() == undisturbed
    kit.assert_tidy()


def test_memory_is_raised_after_an_out_of_memory_kill(kit: DockerKit) -> None:
    kit.wish("first", "memory")
    out = kit.docker("--to", "first").stdout
    assert "host memory ran out" in out
    assert "Trying again" in out
    asked = [event["resources"]["memory"] for event in kit.said("step-started")]
    assert asked == ["100Mi", "150Mi"]


def test_memory_is_raised_only_up_to_its_limit(kit: DockerKit) -> None:
    kit.wish("first", "memory", "memory", "memory")
    result = kit.docker("--to", "first", "--set", "first.resources.memory_limit=120Mi", check=137)
    assert "host memory ran out" in result.stderr
    assert [event["resources"]["memory"] for event in kit.said("step-started")] == ["100Mi", "120Mi"]
    kit.assert_none_running()


def test_a_bus_error_doubles_the_shared_memory(kit: DockerKit) -> None:
    kit.wish("first", "bus")
    kit.docker("--to", "first")
    assert [event["resources"]["shm"] for event in kit.said("step-started")] == ["1Gi", "2048Mi"]


@pytest.mark.parametrize(
    ("wish", "code", "says"),
    [("data", 3, "No word can be read"), (4, 4, "more memory than the GPU has"), ("full", 74, "disk is full")],
)
def test_a_failure_without_a_remedy_ends_the_run(kit: DockerKit, wish: str | int, code: int, says: str) -> None:
    kit.wish("first", wish)
    assert says in kit.docker("--to", "first", check=code).stderr
    assert kit.attempts()["first"] == 1
    kit.assert_none_running()


def test_an_interrupted_or_killed_step_is_retried(kit: DockerKit) -> None:
    kit.wish("first", "again", "kill")
    kit.docker("--to", "first")
    assert [event["failure"] for event in kit.said("attempt-failed")] == ["transient", "unknown kill"]


def test_missing_gpus_of_the_engine_are_reported_before_anything_runs(kit: DockerKit, engine: Any) -> None:
    if "nvidia" in engine.info().get("Runtimes", {}):
        pytest.skip("this engine has GPUs")
    result = kit.docker("--to", "first", "--set", "first.resources.gpus=1", check=5)
    assert "has no GPUs" in result.stderr
    assert "device: cpu" in result.stderr
    assert kit.attempts() == {}
    kit.assert_none_running()


def test_a_stop_ends_the_stage_and_leaves_no_container(kit: DockerKit) -> None:
    kit.hold("first")
    process = kit.start("--to", "first")
    kit.wait_until_held("first")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "stopped by SIGTERM" in kit.runs()[0].log("first", 1).read_text()
    kit.assert_none_running()


def test_cancel_stops_the_containers_of_a_killed_launcher(kit: DockerKit) -> None:
    kit.hold("first")
    process = kit.start("--to", "first")
    kit.wait_until_held("first")
    process.kill()
    process.communicate()
    [job] = kit.backend.existing("vase-first-")
    assert "is still running" in kit.call("clean", kit.runs()[0].name, check=2).stderr
    assert "cancelled" in kit.call("cancel").stdout
    assert kit.backend.state(job) is State.GONE
    assert kit.backend.existing("vase-") == []


def test_detached_steps_continue_and_are_adopted(kit: DockerKit, undisturbed: dict[str, dict[str, Any]]) -> None:
    held = kit.hold("first")
    process = kit.start("--detach")
    kit.wait_until_held("first")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "its steps keep running" in out
    [job] = kit.backend.existing("vase-first-")
    assert not kit.backend.state(job).is_terminal
    held.unlink()
    kit.docker()
    assert kit.attempts() == dict.fromkeys(STEPS, 1)
    assert kit.contents() == undisturbed
    assert len(kit.runs()) == 1


def test_a_moved_tag_does_not_change_a_run(kit: DockerKit, engine: Any) -> None:
    engine.images.get(containers.copying_image()).tag("vasevqa-test/copying", "moving")
    kit.use_image("vasevqa-test/copying:moving")
    held = kit.hold("first")
    process = kit.start()
    kit.wait_until_held("first")
    engine.images.get("vasevqa/base:latest").tag("vasevqa-test/copying", "moving")  # this image lacks the stage
    held.unlink()
    _, errors = process.communicate(timeout=60)
    engine.images.remove("vasevqa-test/copying:moving")
    assert process.returncode == 0, errors
    assert len({event["image"] for event in kit.said("step-started")}) == 1


def test_secrets_reach_only_the_stage(kit: DockerKit, engine: Any) -> None:
    held = kit.hold("first")
    process = kit.start(
        "--to",
        "first",
        "--json",
        env={
            "HF_TOKEN": "hf_secret_of_mine",
            "HF_HUB_OFFLINE": "0",
            "HTTPS_PROXY": "http://me:password_of_mine@proxy.example:3128",
            "HTTP_PROXY": "http://proxy.example:3128",
        },
    )
    kit.wait_until_held("first")
    [container] = [
        entry for entry in engine.containers.list() if entry.labels.get("vasevqa.log", "").startswith(str(kit.root))
    ]
    environment = container.attrs["Config"]["Env"]
    assert "HTTP_PROXY=http://proxy.example:3128" in environment
    assert "of_mine" not in str(container.attrs)
    assert container.attrs["HostConfig"]["PidsLimit"] > 1000
    held.unlink()
    out, errors = process.communicate(timeout=60)
    assert "of_mine" not in out + errors
    for path in kit.volume.root.rglob("*"):
        assert not path.is_file() or b"of_mine" not in path.read_bytes(), path
    printed = kit.call("repro", kit.runs()[0].name, "first", env={"HF_TOKEN": "hf_secret_of_mine"}).stdout
    assert "-e HF_TOKEN" in printed
    assert "hf_secret" not in printed


def test_a_stage_in_a_container_gets_its_secrets_and_prints_none(kit: DockerKit) -> None:
    kit.wish("first", "tell HF_TOKEN HTTPS_PROXY")
    kit.docker(
        "--to",
        "first",
        check=3,
        env={
            "HF_TOKEN": "hub_of_mine",
            "HF_HUB_OFFLINE": "0",
            "HTTPS_PROXY": "http://me:password_of_mine@proxy.example:3128",
        },
    )
    [log] = kit.runs()[0].path.glob("logs/*.log")
    assert "on stdout {'HF_TOKEN': '***', 'HTTPS_PROXY': '***'}" in log.read_text()
    assert list((kit.volume.root / ".secrets").iterdir()) == []


def test_site_settings_take_precedence_and_confidential_values_are_not_shown(kit: DockerKit) -> None:
    settings = {
        "images": {"copying": containers.copying_image()},
        "environment": {"OMP_NUM_THREADS": "7"},
        "secrets": {
            "OTHER_TOKEN": {"secret": "other", "key": "token"},
            "HTTPS_PROXY": {"secret": "other", "key": "proxy"},
        },
    }
    kit.cluster_file.write_text(yaml.safe_dump(settings))
    backend = DockerBackend(kit.volume.root, Cluster.model_validate(settings))
    task = small_task(kit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTHER_TOKEN", "other_of_mine")
        patch.setenv("HTTPS_PROXY", "http://me:password_of_mine@proxy.example:3128")
        environment = backend.container(task)["environment"]
    assert environment["OMP_NUM_THREADS"] == "7"
    assert environment["VASEVQA_SECRET_FILE"].startswith(str(kit.volume.root))
    assert "of_mine" not in str(environment)
    kit.docker("--to", "first")
    printed = kit.call("repro", kit.runs()[0].name, "first").stdout
    assert "_of_mine" not in printed
    for name in ("HTTPS_PROXY", "OTHER_TOKEN"):
        assert f"-e {name} " in printed
    assert "-e OMP_NUM_THREADS=7" in printed


def test_a_missing_requirement_is_reported_in_one_sentence(kit: DockerKit) -> None:
    result = kit.docker(check=69, env={"DOCKER_HOST": "unix:///nowhere/docker.sock"})
    assert (
        result.stderr
        == "error: No Docker engine answers at unix:///nowhere/docker.sock; start the engine, set DOCKER_HOST, or use"
        " `--backend local`.\n"
    )
    kit.use_image("vasevqa/nowhere:1")
    result = kit.docker("--to", "first", check=2)
    assert (
        "error: The image vasevqa/nowhere:1 does not exist; build it with `make image STAGE=nowhere`" in result.stderr
    )
    kit.cluster_file.write_text("registrie: x\n")
    assert "there is no setting 'registrie'. Did you mean 'registry'?" in kit.docker(check=2).stderr


def test_inputs_are_read_through_links_and_dots(kit: DockerKit, undisturbed: dict[str, dict[str, Any]]) -> None:
    """A recipe in its own folder reads words through a link on the volume to another folder. In the container, each
    path has the same meaning as outside.
    """
    (kit.root / "words").rename(kit.root / "elsewhere")
    (kit.volume.root / "inputs").mkdir()
    (kit.volume.root / "inputs/words").symlink_to(kit.root / "elsewhere")
    (kit.root / "recipes").mkdir()
    recipe = kit.root / "recipes/words.yaml"
    recipe.write_text(kit.recipe.read_text().replace('"words": "words"', '"words": "../volume/inputs/words"'))
    kit.call("run", recipe, "--backend", "docker", "--cluster", kit.cluster_file)
    assert kit.contents() == undisturbed
    assert [path.name for path in sorted((kit.root / "elsewhere").iterdir())] == ["alpha.txt", "beta.txt"]


def test_a_log_is_never_rotated_whatever_the_daemons_settings_are(kit: DockerKit, engine: Any) -> None:
    kit.volume.root.mkdir(exist_ok=True)
    container = engine.containers.create(**kit.backend.container(small_task(kit)))
    found = container.attrs["HostConfig"]["LogConfig"]
    assert (found["Type"], found["Config"]["max-size"]) == ("json-file", "1000g")
