"""Rewards as ms-swift loads them: ours, and a user's in both forms."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from swift.rewards import orms

from vasevqa.errors import ConfigError, DataError
from vasevqa.training.swift import plugin as swift_plugin

CLASS_FORM = """
from swift.rewards import ORM, orms

class Mine(ORM):
    def __call__(self, completions, solution, **kwargs):
        return [float(len(answer)) for answer in completions]

orms['mine'] = Mine
class Unregistered(ORM):
    def __call__(self, completions, **kwargs):
        return [0.25] * len(completions)
"""


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    before = dict(orms)
    yield
    orms.clear()
    orms.update(before)


def plugin(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(text)
    return path


def test_ours_know_the_attribute_and_the_question() -> None:
    accuracy = orms["external_vase_acc"]()
    messages = [[{"role": "user", "content": "<image>Which shape?"}]] * 3
    kwargs = {"attribute": ["shape"] * 3, "messages": messages, "prompt_id": ["a", "b", "c"], "trainer_state": None}
    assert accuracy(["lecythus", "Which shape?", ""], ["lekythos"] * 3, **kwargs) == [1.0, 0.0, 0.0]
    assert orms["external_vase_format"]()(["lekythos", ""], solution=["x", "y"]) == [1.0, 0.0]


def test_a_plain_function_wins_over_ours(tmp_path: Path) -> None:
    path = plugin(
        tmp_path,
        "def external_vase_acc(responses, references):\n    return [0.5 if a == b else 0.0 for a, b in zip(responses,"
        " references)]\n",
    )
    swift_plugin.register_user_plugin(path, ["external_vase_acc", "external_vase_format"])
    assert orms["external_vase_acc"]()(["a", "b"], ["a", "a"], attribute=["shape", "shape"]) == [0.5, 0.0]
    assert orms["external_vase_format"] is swift_plugin.VaseFormat


def test_orm_classes_registered_or_not(tmp_path: Path) -> None:
    swift_plugin.register_user_plugin(plugin(tmp_path, CLASS_FORM), ["mine", "Unregistered"])
    assert orms["mine"]()(["abc"], solution=["x"]) == [3.0]
    assert orms["Unregistered"]()(["abc", "d"], solution=["x", "y"]) == [0.25, 0.25]


@pytest.mark.parametrize(
    ("text", "names", "said"),
    [
        ("def (", ["f"], "can't be imported .SyntaxError"),
        ("import nowhere_at_all", ["f"], "can't be imported .ModuleNotFoundError"),
        ("def vase_reward(responses, references):\n    return []\n", ["vase_rewad"], "did you mean 'vase_reward'"),
    ],
)
def test_a_file_that_will_not_do(text: str, names: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"(?i){said}"):
        swift_plugin.register_user_plugin(plugin(tmp_path, text), names)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("[1.0]", "1 scores for 2"),
        ("['x', 1]", "must return a number"),
        ("None", "must return a number"),
        ("[float('nan'), 1]", "finite"),
    ],
)
def test_a_function_that_returns_nonsense(returned: str, said: str, tmp_path: Path) -> None:
    swift_plugin.register_user_plugin(
        plugin(tmp_path, f"def f(responses, references):\n    return {returned}\n"), ["f"]
    )
    with pytest.raises(DataError, match=f"reward f returned.*{said}"):
        orms["f"]()(["a", "b"], ["c", "d"])
