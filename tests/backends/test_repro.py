"""`vasevqa repro`: the command that it prints repeats a step."""

from __future__ import annotations

import json
import os
import subprocess

from tests import containers
from tests.backends.docker_kit import DockerKit


def test_repro_prints_a_command_that_repeats_the_step(kit: DockerKit) -> None:
    kit.docker("--to", "left", "--set", "left.ending=-it's")
    run = kit.runs()[0]
    printed = kit.call("repro", run.name, "left").stdout
    assert f"{containers.engine().images.get(containers.copying_image()).id}" in printed
    subprocess.run(["sh", "-c", printed], check=True, capture_output=True)
    [left] = kit.volume.complete("left")
    repeated = kit.volume.root / f"repro/left-{left.key[:10]}"
    assert {path.name: path.read_text() for path in repeated.glob("*.txt")} == {
        path.name: path.read_text() for path in left.path.glob("*.txt")
    }
    assert (repeated / "words-words-alpha.txt").read_text() == "alpha-it's"
    lines = [json.loads(line) for line in run.events.path.read_text().splitlines()]  # as older versions recorded a run
    old = [
        {name: value for name, value in line.items() if name not in ("reads", "offline", "environment")}
        for line in lines
    ]
    run.events.path.write_text("".join(json.dumps(line) + "\n" for line in old))
    assert f" -v {kit.root}/words:{kit.root}/words:ro " in kit.call("repro", run.name, "first").stdout
    assert "has no step 'lfet'. Did you mean 'left'?" in kit.call("repro", run.name, "lfet", check=2).stderr


def test_repro_mounts_the_inputs_outside_the_volume(kit: DockerKit) -> None:
    (kit.root / "words").rename(kit.root / "elsewhere")
    (kit.volume.root / "inputs").mkdir()
    (kit.volume.root / "inputs/words").symlink_to(kit.root / "elsewhere")
    (kit.root / "elsewhere/gamma.txt").write_text("gamma")
    kit.recipe.write_text(kit.recipe.read_text().replace('"words": "words"', '"words": "volume/inputs/words"'))
    home = kit.root / "home"
    kit.docker(
        "--to",
        "first",
        "--set",
        "first.resources.cpus=4096",
        env={"HF_HOME": str(home), "HTTPS_PROXY": "http://proxy.example:3128"},
    )
    [started] = kit.said("step-started")
    assert (started["reads"], started["offline"], started["environment"]["HF_HOME"]) == (
        [str(kit.root / "elsewhere")],
        True,
        str(home),
    )
    assert "proxy.example" not in json.dumps(started)
    printed = kit.call("repro", kit.runs()[0].name, "first").stdout
    for part in (f"--cpus {os.cpu_count()} ", f"-v {home}:{home} ", f"-e HF_HOME={home} ", "-e HF_HUB_OFFLINE="):
        assert part in printed
    subprocess.run(["sh", "-c", printed], check=True, capture_output=True)
    [first] = kit.volume.complete("first")
    repeated = kit.volume.root / f"repro/first-{first.key[:10]}"
    assert {path.name: path.read_text() for path in repeated.glob("*.txt")} == {
        path.name: path.read_text() for path in first.path.glob("*.txt")
    }
    assert (repeated / "words-gamma.txt").read_text() == "gamma"
