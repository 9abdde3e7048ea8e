"""Confidential values of the environment: which stages get them, and that no log, event or report shows them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tests.pipeline.kit import Kit
from vasevqa.backends.cluster import Cluster
from vasevqa.backends.docker.secrets import Secrets

ENVIRON = {
    "HF_TOKEN": "hub-value-of-mine",
    "HTTPS_PROXY": "http://me:proxy-of-mine@proxy.example:3128",
    "MUSEUM": "named-of-mine",
    "PLACE": "Athens",
}
TELL = "tell HF_TOKEN HTTPS_PROXY MUSEUM PLACE"


def told(kit: Kit) -> str:
    """What the step's log contains."""
    [log] = kit.runs()[0].path.glob("logs/*.log")
    return log.read_text()


@pytest.mark.parametrize("offline", ["0", "1"])
def test_no_log_event_or_report_shows_a_confidential_value(kit: Kit, offline: str) -> None:
    kit.wish("first", TELL)
    cluster = kit.root / "cluster.yaml"
    cluster.write_text(yaml.safe_dump({"secrets": {"MUSEUM": {"secret": "museum", "key": "value"}}}))
    result = kit.run("--to", "first", "--cluster", cluster, check=3, env={**ENVIRON, "HF_HUB_OFFLINE": offline})
    run = kit.runs()[0]
    kit.call("report", run.name)
    for path in kit.volume.root.rglob("*"):
        assert not path.is_file() or b"of-mine" not in path.read_bytes(), path
    assert "of-mine" not in result.stdout + result.stderr
    for begin in ("on stdout", "on stderr", "In a message"):
        assert f"{begin} {{'HF_TOKEN': {'None' if offline == '1' else repr('***')}, 'HTTPS_PROXY': '***'" in told(kit)
    assert "'PLACE': 'Athens'" in told(kit)
    assert "'MUSEUM': '***'" in (run.path / "report.html").read_text().replace("&#39;", "'")


def test_only_a_stage_that_may_reach_a_hub_gets_the_token(kit: Kit) -> None:
    """All inputs of this step are on the volume, so that the step downloads nothing."""
    kit.wish("first", TELL)
    kit.run("--to", "first", check=3, env=ENVIRON)
    assert "'HF_TOKEN': None" in told(kit)


def container(name: str, *variables: str) -> SimpleNamespace:
    return SimpleNamespace(name=name, attrs={"Config": {"Env": list(variables)}})


def test_a_container_gets_its_secrets_by_a_file_that_only_its_user_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    secrets = Secrets(tmp_path, Cluster.model_validate({"secrets": {"MUSEUM": {"secret": "a", "key": "b"}}}))
    wanted = {name: ENVIRON[name] for name in ("HF_TOKEN", "HTTPS_PROXY", "MUSEUM")}
    assert secrets.of(hub=True) == wanted
    path = secrets.path("one")
    secrets.hand_over(container("one", f"VASEVQA_SECRET_FILE={path}", "HF_HUB_OFFLINE=0"))
    assert json.loads(path.read_text()) == wanted
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    secrets.hand_over(container("one", f"VASEVQA_SECRET_FILE={path}", "HF_HUB_OFFLINE=1"))
    assert json.loads(path.read_text()) == {name: value for name, value in wanted.items() if name != "HF_TOKEN"}
    secrets.forget("one")
    secrets.hand_over(container("two", "PATH=/bin"))
    assert list(path.parent.iterdir()) == []
