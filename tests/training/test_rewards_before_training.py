"""Checks of rewards before the slow loading of a model: names, signatures, solutions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.training.conftest import grpo_call, grpo_params, write_rows
from vasevqa.artifacts.volume import Volume
from vasevqa.errors import ConfigError, DataError
from vasevqa.pipeline.catalog import PIPELINE
from vasevqa.pipeline.plan import make_plan
from vasevqa.pipeline.recipe import load_recipe
from vasevqa.stages import grpo
from vasevqa.training import trainer


def test_a_reward_needs_solutions(tmp_path: Path, qwen: Path, rows: Path) -> None:
    write_rows(
        rows / "grpo.jsonl", [{"messages": [{"role": "user", "content": "<image>?"}], "images": ["images/00.jpg"]}]
    )
    with pytest.raises(DataError, match="has no 'solution'"):
        grpo.run(grpo_call({"model": qwen, "dataset": rows}, tmp_path / "out"))


def rewarded(tmp_path: Path, qwen: Path, rows: Path, plugin: str | None, *names: str) -> None:
    inputs = {"model": qwen, "dataset": rows}
    if plugin is not None:
        (tmp_path / "mine.py").write_text(plugin)
        inputs["plugin"] = tmp_path / "mine.py"
    call = grpo_call(inputs, tmp_path / "out", reward_funcs=list(names or ("f",)), max_steps=1)
    trainer.Training(call).check()


PLUGINS: dict[str, tuple[str | None, str]] = {
    "not Python": ("def f(:\n", r"mine\.py, line 1: the file is not valid Python"),
    "another name": (
        "def g(completions): ...\n",
        "defines no reward 'f'.*Known: accuracy, cosine, external_vase_acc, external_vase_format, external_vase_paper,"
        " format, g, math",
    ),
    "no file": (None, "reward_funcs names 'f', but no file of rewards .plugin. is given"),
    "two of one name": ("def f(a): ...\ndef f(a, b): ...\n", r"more than once .lines 1 and 2.; keep one"),
    "no completions": ("def f(solution): ...\n", r"f\(solution\) can't be called: no parameter takes the completions"),
    "no parameter": ("def f(): ...\n", "no parameter takes the completions; write `def NAME.completions, solution"),
    "a misspelt column": ("def f(completions, atribute): ...\n", "nothing is passed for 'atribute'.*attribute, sol"),
    "a row at a time": ("def f(response: str, reference: str): ...\n", "'response' takes one text"),
    "another library's": (
        "def f(data_source, solution_str, ground_truth, extra_info=None): ...\n",
        "nothing is passed for 'solution_str'",
    ),
    "async": ("async def f(completions, *, judge): ...\n", "nothing is passed for 'judge'"),
    "a class": (
        "class F:\n    def __call__(self, completions, *, judge): ...\norms['f'] = F\n",
        "nothing is passed for 'judge'",
    ),
}


@pytest.mark.parametrize("what", PLUGINS)
def test_a_reward_that_cannot_be_called_is_found_without_running_the_file(
    what: str, tmp_path: Path, qwen: Path, rows: Path
) -> None:
    text, said = PLUGINS[what]
    with pytest.raises(ConfigError, match=said):
        rewarded(tmp_path, qwen, rows, text if text is None else f"{text}raise SystemExit('ran')\n")


def test_a_reward_that_cannot_be_called_is_found_before_earlier_steps_run(tmp_path: Path) -> None:
    folders = ("model", "images", "clip_model", "quality_data")
    for name in folders:
        (tmp_path / name).mkdir()
    for label in ("0", "1"):
        (tmp_path / "quality_data" / label).mkdir()
        for vase in "abc":
            Image.new("RGB", (8, 8)).save(tmp_path / "quality_data" / label / f"vase {vase}{label}_front.jpg")
    (tmp_path / "annotations.json").write_text("[]")
    (tmp_path / "mine.py").write_text("def f(solution): ...\n")
    (tmp_path / "recipe.yaml").write_text(
        f"inputs: {{{', '.join(f'{name}: {name}' for name in folders)}, annotations: annotations.json,"
        " reward_plugin: mine.py}\nsteps:\n  grpo: {reward_funcs: [f]}\n"
    )

    def planned() -> list[str]:
        recipe = load_recipe(tmp_path / "recipe.yaml", PIPELINE)
        return [step.name for step in make_plan(recipe, PIPELINE, Volume(tmp_path / "volume")).steps]

    with pytest.raises(ConfigError, match="no parameter takes the completions"):
        planned()
    (tmp_path / "mine.py").write_text("def f(completions, height): ...\n")
    assert "grpo" in planned()


def test_rewards_that_need_a_run_of_the_file_are_not_checked(tmp_path: Path, qwen: Path, rows: Path) -> None:
    text = "from elsewhere import *\nf = make()\n@jit\ndef h(x, y, z): ...\ndef k(x, y): ...\n"
    rewarded(tmp_path, qwen, rows, text, "f", "g", "h", "k", "external_vase_acc", "format")
    with pytest.raises(ValueError, match="names f twice"):
        grpo_params(reward_funcs=["f", "f"])


@pytest.mark.parametrize(
    "text",
    [
        "f: object = make()\n",
        "g, (f, *h) = make()\n",
        "print(f := make())\n",
        "for f in makers: pass\n",
        "with make() as f: pass\n",
        "import os\nif os.name:\n    f = make()\n",
    ],
)
def test_every_form_of_assignment_defines_a_reward(text: str, tmp_path: Path, qwen: Path, rows: Path) -> None:
    rewarded(tmp_path, qwen, rows, text, "f")
    with pytest.raises(ConfigError, match="defines no reward 'k'"):
        rewarded(tmp_path, qwen, rows, text, "k")


def test_a_solution_that_our_reward_cannot_read_is_reported_with_its_line(
    tmp_path: Path, qwen: Path, rows: Path
) -> None:
    lines = (rows / "grpo.jsonl").read_text().splitlines()
    unreadable = {**json.loads(lines[2]), "solution": {"colour": "red", "height": 12}}
    write_rows(rows / "grpo.jsonl", [json.loads(lines[0]), {**json.loads(lines[1]), "solution": 0}, unreadable])
    with pytest.raises(DataError, match=r"grpo\.jsonl, line 3: .*external_vase_acc can't read the solution .*colour"):
        rewarded(tmp_path, qwen, rows, None, "external_vase_acc")
    rewarded(tmp_path, qwen, rows, "def f(completions, solution): ...\n")
    rewarded(tmp_path, qwen, rows, "def external_vase_acc(completions, solution): ...\n", "external_vase_acc")
