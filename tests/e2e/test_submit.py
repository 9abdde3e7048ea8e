"""`vasevqa submit` and `vasevqa attach` with only a user's rights in a namespace."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess

import pytest

from tests.e2e.inside import Site, inside_images, site, until  # noqa: F401 - fixtures
from tests.e2e.kit import wait_for_line


def launch_of(text: str) -> str:
    found = re.search(r"vasevqa-words-[0-9a-f]{10}", text)
    assert found is not None, text
    return found[0]


def test_submit_follows_the_run_to_its_end_and_downloads_the_report(site: Site) -> None:  # noqa: F811
    site.be_a_user()
    out = site.vasevqa("submit", site.recipe(), "--report", site.folder).stdout
    assert f"Started {launch_of(out)} in namespace {site.namespace}." in out
    assert out.index("first: started") < out.index("last: done") < out.index("Report: /data/runs/")
    run = re.search(r"^run (\S+)$", out, re.MULTILINE)
    assert run is not None
    assert "<html" in (site.folder / f"{run[1]}.html").read_text()
    assert sorted(site.attempts()) == ["first", "last", "left", "right"]
    again = site.vasevqa("submit", site.recipe()).stdout
    assert "Nothing to do: all 4 steps are up to date." in again
    assert len(site.attempts()) == 4
    assert "Nothing to do" in site.vasevqa("attach", launch_of(out)).stdout
    changed = site.vasevqa("submit", site.recipe(), "--set", "last.ending=x", "--only", "last").stdout
    assert "last: done" in changed
    assert len(site.attempts()) == 5
    assert f"{run[1]}: finished" in site.vasevqa("status").stdout  # this machine has no volume, so a pod answers
    assert "first: 2 words" in site.vasevqa("logs", run[1], "-n", site.namespace).stdout
    assert "4 artifacts are as their steps wrote them." in site.vasevqa("verify", run[1], "-n", site.namespace).stdout
    assert f"Report: /data/runs/{run[1]}/report.html" in site.vasevqa("report", run[1]).stdout
    assert f"run: runs/{run[1]}" in site.vasevqa("clean", "--keep-last", "1", "-n", site.namespace).stdout
    planned = site.vasevqa("plan", site.recipe(), "--set", "left.ending=z").stdout
    assert [line.split()[:2] for line in planned.splitlines() if not line.startswith(" ")] == [
        ["first", "hit"],
        ["left", "run"],
        ["right", "hit"],
        ["last", "run"],
    ]
    assert "there is nothing to cancel" in site.vasevqa("cancel", run[1], check=2).stdout
    assert site.launchers()
    site.helm("uninstall", "it")
    until(
        lambda: not site.names("jobs,pods") and not site.names("configmaps", "-l", "vasevqa/launch"),
        "the removal of all launches of the release",
        120,
    )


def test_ctrl_c_detaches_and_attach_finds_the_run_again(site: Site) -> None:  # noqa: F811
    site.be_a_user()
    held = site.hold("left")
    process = site.start("submit", site.recipe())
    line, _ = wait_for_line(process, "run ", 120)
    site.wait_until_held("left")
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    launch = launch_of(out)
    assert re.search(rf"`vasevqa attach {launch} -n {site.namespace} --cluster \S+` follows it again", out)
    again = site.start("submit", site.recipe())
    assert "Already running: " in wait_for_line(again, launch)[0]
    again.kill()
    again.communicate()
    follower = site.start("attach", line.split()[1])  # the name of the run also works
    wait_for_line(follower, "right: done", 120)
    held.unlink()
    out, _ = follower.communicate(timeout=120)
    assert follower.returncode == 0
    assert "last: done" in out
    assert sorted(site.attempts()) == ["first", "last", "left", "right"]


def test_a_restarted_launcher_does_not_repeat_a_step_that_failed_for_good(site: Site) -> None:  # noqa: F811
    site.be_a_user()
    site.wish("left", "data", "data", "data")
    result = site.vasevqa("submit", site.recipe(), check=3)
    assert "No word can be read." in result.stdout
    launch = launch_of(result.stdout)

    def rests() -> bool:
        pods = site.all("pods", "-l", f"job-name={launch}")
        return any(
            status["restartCount"] and "waiting" in status["state"]
            for pod in pods
            for status in pod["status"].get("containerStatuses", [])
        )

    until(rests, "the time between two restarts", 120)
    assert "No word can be read." in site.vasevqa("attach", launch, check=3).stdout
    assert site.attempts().count("left") == 1


def test_a_run_is_cancelled_from_outside_the_cluster(site: Site) -> None:  # noqa: F811
    site.be_a_user()
    site.hold("first")
    process = site.start("submit", site.recipe())
    line, _ = wait_for_line(process, "run ", 120)
    site.wait_until_held("first")
    assert ": running" in site.vasevqa("status").stdout
    assert f"{line.split()[1]}: cancelled" in site.vasevqa("cancel").stdout
    process.communicate(timeout=120)
    assert process.returncode == 130
    until(lambda: not site.names("jobs", "-l", "vasevqa/step"), "the removal of the step's Job", 120)


@pytest.mark.parametrize("how", ["moved", "killed"])
def test_a_killed_or_moved_launcher_resumes(site: Site, how: str) -> None:  # noqa: F811
    site.be_a_user()
    held = site.hold("left")
    process = site.start("submit", site.recipe())
    wait_for_line(process, "run ", 120)
    site.wait_until_held("left")
    [pod] = site.names("pods", "-l", "app.kubernetes.io/component=launcher")
    if how == "moved":
        site.kubectl("delete", "pod", pod)
    else:  # the kubelet restarts the launcher in the same pod
        site.kubectl("exec", pod, "--", "sh", "-c", "kill -9 $(cat /proc/1/task/1/children)")
    wait_for_line(process, "left: found running, adopted", 120)
    assert (site.names("pods", "-l", "app.kubernetes.io/component=launcher") == {pod}) == (how == "killed")
    held.unlink()
    out, errors = process.communicate(timeout=180)
    assert process.returncode == 0, out + errors
    assert "last: done" in out
    assert sorted(site.attempts()) == ["first", "last", "left", "right"]


def test_a_restarted_api_server_ends_neither_the_run_nor_the_output(site: Site) -> None:  # noqa: F811
    restart = os.environ.get("VASEVQA_E2E_RESTART_API")
    if not restart:
        pytest.skip("VASEVQA_E2E_RESTART_API names no command that restarts the API server")
    site.be_a_user()
    held = site.hold("left")
    process = site.start("submit", site.recipe())
    site.wait_until_held("left")
    subprocess.run(restart, shell=True, check=True, capture_output=True, timeout=120)
    held.unlink()
    out, errors = process.communicate(timeout=180)
    assert process.returncode == 0, out + errors
    assert out.count("left: done") == out.count("last: done") == 1
    assert sorted(site.attempts()) == ["first", "last", "left", "right"]


def test_a_run_works_in_a_namespace_with_a_quota_and_limits(site: Site) -> None:  # noqa: F811
    quota = {
        "requests.cpu": "2",
        "requests.memory": "3Gi",
        "limits.memory": "3Gi",
        "limits.cpu": "6",
        "pods": "8",
        "configmaps": "20",
    }
    limits = [{"type": "Container", "default": {"cpu": "1"}, "max": {"memory": "2Gi"}}]
    for kind, spec in (("ResourceQuota", {"hard": quota}), ("LimitRange", {"limits": limits})):
        thing = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "it"}, "spec": spec}
        site.kubectl("apply", "-f", "-", given=json.dumps(thing))
    site.be_a_user()
    assert "last: done" in site.vasevqa("submit", site.recipe()).stdout


def test_a_missing_requirement_is_reported_in_one_sentence(site: Site) -> None:  # noqa: F811
    site.be_a_user()
    for settings, words, says in (
        ({"claim": "other"}, [], "There is no claim other"),
        ({"service_account": "nobody"}, [], 'serviceaccount "nobody" not found'),
        ({"images": {"launcher": "no/such:image"}}, [], "no/such:image can't be pulled"),
        ({}, ["--set", "left.endng=x"], "Did you mean 'ending'"),
        ({}, ["--input", "words=/home/ada/words"], "which is not on the volume"),
        ({}, ["--only", "lefft"], "Did you mean 'left'"),
    ):
        site.cluster_file(**settings)
        process = site.start("submit", site.recipe(), *words)
        if "service_account" in settings or "images" in settings:
            assert says in wait_for_line(process, "The launcher waits", 120)[0]
            process.kill()
            process.communicate()
        else:
            _, errors = process.communicate(timeout=60)
            assert process.returncode in (2, 69)
            assert says in errors
            assert len(errors.splitlines()) == 1
    env = {"KUBECONFIG": str(site.folder / "nothing")}
    assert "No cluster is configured" in site.vasevqa("submit", site.recipe(), check=69, env=env).stderr
