"""`vasevqa doctor` and `helm test` on a real cluster."""

from __future__ import annotations

import json
import os
from typing import Any

from tests.e2e.inside import Site, inside_images, site, until  # noqa: F401 - fixtures
from tests.pipeline.kit import ROOT

VASE = ROOT / "vasevqa/recipes/vase.yaml"


def findings(site: Site, *words: Any, check: int) -> dict[str, dict[str, Any]]:  # noqa: F811
    out = site.vasevqa("doctor", *words, "--backend", "kubernetes", "--json", check=check).stdout
    return {found["what"]: found for found in map(json.loads, out.splitlines())}


def ready(site: Site) -> str:  # noqa: F811
    """Prepare a user's site. Its Cluster file doesn't name the test's own stage; return the image of this stage."""
    copying = site.images["copying"]
    site.images = {"launcher": site.images["launcher"]}
    site.be_a_user()
    return copying


def test_a_usable_namespace_has_no_bad_finding_and_hidden_objects_are_not_checked(site: Site) -> None:  # noqa: F811
    ready(site)
    found = findings(site, check=0)
    assert {finding["state"] for finding in found.values()} <= {"ok", "not checked"}
    assert {"cluster", "claim", "rights: jobs", "rights: pods/exec", "space"} <= set(found)
    assert found["service account"]["state"] == "not checked"
    assert found[f"image {site.images['launcher']}"]["state"] == "ok"
    until(lambda: not site.names("pods"), "the removal of the pods", 120)
    out = site.helm("test", "it", "--logs")
    assert "Phase:          Succeeded" in out
    assert "ok    rights: jobs" in out


def test_problems_are_reported_with_a_remedy(site: Site) -> None:  # noqa: F811
    copying = ready(site)
    site.cluster_file(
        claim="other",
        queue="q",
        secrets={"HF_TOKEN": {"secret": "hub", "key": "token"}},
        images={**site.images, "classify": "no/such:image"},
    )
    recipe = site.folder / "r.yaml"
    recipe.write_text("inputs: {images: nowhere, train-classifier: words/alpha.txt}\nto: classify\n")
    found = findings(site, recipe, check=69)
    assert "there is no claim other" in found["claim"]["text"]
    assert "can't be pulled" in found["image no/such:image"]["text"]
    assert found["secret hub"]["state"] == "not checked"  # the role of a user can't read Secrets
    assert found["GPUs"]["state"] == "not checked"
    site.cluster_file(images={**site.images, "classify": copying})
    found = findings(site, recipe, check=3)
    assert "there is no /data/nowhere" in found["input images"]["text"]
    assert "alpha.txt is not a PyTorch checkpoint" in found["input train-classifier"]["text"]


def test_an_administrator_gets_findings_about_gpus_and_secrets(site: Site) -> None:  # noqa: F811
    ready(site)
    site.kubeconfig.unlink()
    env = {"KUBECONFIG": os.environ["KUBECONFIG"]}
    site.cluster_file(secrets={"HF_TOKEN": {"secret": "hub", "key": "token"}})
    site.kubectl("create", "secret", "generic", "hub", "--from-literal=other=x")
    words = (
        "doctor",
        VASE,
        "--backend",
        "kubernetes",
        "-n",
        site.namespace,
        "--json",
        "--no-pull",
        "--set",
        "sft.resources.gpus=64",
    )
    out = site.vasevqa(*words, check=69, env=env).stdout
    found = {finding["what"]: finding for finding in map(json.loads, out.splitlines())}
    assert "the Secret has no key token" in found["secret hub"]["text"]
    assert "no node has 64 GPUs" in found["GPUs: sft"]["text"]
    assert found["GPUs: classify"]["state"] == "ok"
    assert found["volume"]["state"] == "not checked"
