"""Fixtures of the tests on a cluster. `make e2e` runs these tests on the cluster of KUBECONFIG."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kit import ClusterKit, all_removed, cluster_kit, copying_image, kubectl
from tests.pipeline.kit import wait_for

# seconds; this includes the fixtures, which load images, and the cluster may be slow
TIMEOUT = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT))


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """The image of the copying stage, loaded into the cluster."""
    assert os.environ.get("KUBECONFIG"), "set KUBECONFIG to the cluster that the tests may use"
    kubectl("version", "-o", "json")
    yield copying_image()
    wait_for(all_removed, "the removal of the tests' namespaces", 180)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder that pods on this machine's node see at the same path. Everybody can read it, unlike pytest's own
    folders.
    """
    before = os.umask(0)  # pods have another uid than this process
    folder = Path(tempfile.mkdtemp(prefix="vase-e2e-", dir=os.environ.get("VASEVQA_E2E_FOLDER", "/var/tmp")))
    folder.chmod(0o755)
    yield folder
    os.umask(before)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def kit(place: Path, image: str) -> Iterator[ClusterKit]:
    """A small recipe, its inputs and a volume, in a new namespace."""
    with cluster_kit(place, image) as made:
        yield made


@pytest.fixture
def admin() -> dict[str, str]:
    """The environment of a user with the rights of the tests, for example the right to read nodes."""
    return {"KUBECONFIG": os.environ["KUBECONFIG"]}
