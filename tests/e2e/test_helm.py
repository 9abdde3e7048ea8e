"""The chart on a real cluster."""

from __future__ import annotations

import pytest

from tests.e2e.inside import Site, inside_images, site, until  # noqa: F401 - fixtures


def test_an_installed_recipe_runs_to_its_end_and_leaves_only_the_claim(site: Site) -> None:  # noqa: F811
    site.add_volume("it-vasevqa")
    out = site.install("install", "--set-file", f"recipe={site.recipe()}")
    assert f"vasevqa attach -n {site.namespace}" in out
    site.finish(1)
    assert sorted(site.attempts()) == ["first", "last", "left", "right"]
    assert "Report:" in site.kubectl("logs", "-l", "app.kubernetes.io/component=launcher", "--tail=-1")
    site.install("upgrade", "--reuse-values")  # an unchanged release starts nothing
    assert len(site.launchers()) == 1
    site.helm("uninstall", "it")
    ours = ("-l", "app.kubernetes.io/part-of=vasevqa")
    until(
        lambda: not site.names("jobs,pods,configmaps,roles,rolebindings,serviceaccounts", *ours),
        "the removal of everything",
        120,
    )
    assert site.names("persistentvolumeclaims") == {"it-vasevqa"}


@pytest.mark.timeout(1500)  # three launches, one after the other
def test_an_upgrade_does_not_stop_a_run_and_a_rollback_reuses_its_artifacts(site: Site) -> None:  # noqa: F811
    site.add_volume("it-vasevqa")
    held = site.hold("left")
    site.install("install", "--set-file", f"recipe={site.recipe('one')}")
    site.wait_until_held("left")
    [first] = site.launchers()
    site.install("upgrade", "--set-file", f"recipe={site.recipe('two', last={'ending': 'x'})}")
    until(lambda: len(site.launchers()) == 2, "the second launcher", 120)
    running = {job["metadata"]["name"]: job["status"].get("active") for job in site.launchers()}
    assert running[first["metadata"]["name"]] == 1
    held.unlink()
    site.finish(2)
    assert sorted(site.attempts()) == [
        "first",
        "last",
        "last",
        "left",
        "right",
    ]  # the artifacts that both need were made once
    site.helm("rollback", "it", "1")
    until(
        lambda: len(site.names("jobs", "-l", "app.kubernetes.io/component=launch")) == 1, "the rollback's launch", 120
    )
    site.wait_until_launched()
    site.finish(2)
    assert len(site.attempts()) == 5
    site.helm("uninstall", "it")
    until(lambda: not site.names("jobs,pods"), "the removal of Jobs and pods", 120)
