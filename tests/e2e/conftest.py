"""What the tests on a cluster share: `make e2e` runs them against whatever KUBECONFIG points to."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kit import ClusterKit, all_removed, cluster_kit, copying_image, kubectl
from tests.pipeline.kit import wait_for

# seconds; the time of a test is also that of its fixtures, which load images, and of a cluster that may be slow
TIMEOUT = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT))


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """The copying stage's image, in the cluster."""
    assert os.environ.get("KUBECONFIG"), "set KUBECONFIG to the cluster that the tests may use"
    kubectl("version", "-o", "json")
    yield copying_image()
    wait_for(all_removed, "the tests' namespaces to go", 180)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder whose path is the same for pods on this machine's node, readable by everybody (pytest's own isn't)."""
    before = os.umask(0)  # pods have another uid than this process
    folder = Path(tempfile.mkdtemp(prefix="vase-e2e-", dir=os.environ.get("VASEVQA_E2E_FOLDER", "/var/tmp")))
    folder.chmod(0o755)
    yield folder
    os.umask(before)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def kit(place: Path, image: str) -> Iterator[ClusterKit]:
    """A small recipe, its inputs and a volume, in a namespace of its own."""
    with cluster_kit(place, image) as made:
        yield made


@pytest.fixture
def admin() -> dict[str, str]:
    """The environment of somebody who may do what the tests may, such as reading nodes."""
    return {"KUBECONFIG": os.environ["KUBECONFIG"]}
