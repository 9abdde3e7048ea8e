"""The README's cluster commands: all commands, options and values in them exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from vasevqa.backends.cluster import parse_cluster
from vasevqa.cli import cli

ROOT = Path(__file__).parent.parent.parent
SECTION = (ROOT / "README.md").read_text().split("## On a cluster")[1].split("\n## ")[0]


def lines(word: str) -> list[str]:
    """Return the section's commands that begin with `word`, without comments."""
    return [shlex.join(shlex.split(line, comments=True)) for line in re.findall(rf"^{word} .*$", SECTION, re.MULTILINE)]


@pytest.mark.parametrize("line", lines("vasevqa"))
def test_the_commands_of_the_readme_accept_their_options(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    _, name, *words = shlex.split(line)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    command.make_context(name, words)


def test_the_example_in_the_readme_is_a_valid_cluster_file() -> None:
    text = re.search(r"```yaml\n(.*?)```", SECTION, re.DOTALL)
    assert text is not None
    parse_cluster(yaml.safe_load(text[1]), "the README")
    for line in re.findall(r"^# (.*)$", text[1], re.MULTILINE):  # one line may have several settings
        for setting in re.split(r" {5,}", line):
            parse_cluster(yaml.safe_load(setting), "the README")


@pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")
def test_the_chart_accepts_the_values_in_the_readme(tmp_path: Path) -> None:
    [line] = lines("helm")
    words = shlex.split(line)
    done = subprocess.run(["helm", "template", *words[2:]], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    settings = next(document for document in yaml.safe_load_all(done.stdout) if document["kind"] == "ConfigMap")[
        "data"
    ]["cluster.yaml"]
    site = re.search(r"```yaml\n(.*?)```", SECTION, re.DOTALL)
    assert site is not None
    for key, value in yaml.safe_load(site[1]).items():
        assert yaml.safe_load(settings)[key] == value  # the example file belongs to this release


def test_make_pipeline_without_a_cluster_names_the_demo(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "-o", "setup", "-o", ".venv/installed", "pipeline"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "KUBECONFIG": str(tmp_path / "none"),
            "PYTHONPATH": str(ROOT),
        },
    )
    assert done.returncode != 0
    assert "`make demo`, which needs no cluster" in done.stderr
    assert done.stderr.count("\n") <= 2
