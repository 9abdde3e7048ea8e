"""Rewards that ms-swift loads and calls: the project's rewards, and a user's rewards in all forms."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from swift.rewards import orms
from swift.rl_core.data import GRPOSample
from swift.rl_core.grpo_algorithm import compute_rewards_per_func

from vasevqa.errors import ConfigError
from vasevqa.training.swift import plugin as swift_plugin
from vasevqa.training.swift.worker import sample_no_pictures

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


def scored(name: str, completions: list[str], **columns: Any) -> list[float]:
    """Return the values that ms-swift gets from a reward. NaN means None."""
    columns = {"solution": ["kylix"] * len(completions), **columns}
    messages = [
        [{"role": "user", "content": "<image>Which shape?"}, {"role": "assistant", "content": text}]
        for text in completions
    ]
    extra = {name: values for name, values in columns.items() if name != "messages"}
    samples = [
        GRPOSample(messages=turns, extra={name: values[number] for name, values in extra.items()})
        for number, turns in enumerate(messages)
    ]
    rewards = compute_rewards_per_func(samples, [orms[name](args=None)], [None], torch.device("cpu"))
    return [float(value) for value in rewards[:, 0]]


def test_our_rewards_know_the_attribute_and_the_question() -> None:
    accuracy = orms["external_vase_acc"]()
    messages = [[{"role": "user", "content": "<image>Which shape?"}]] * 3
    kwargs = {"attribute": ["shape"] * 3, "messages": messages, "prompt_id": ["a", "b", "c"], "trainer_state": None}
    assert accuracy(["lecythus", "Which shape?", ""], ["lekythos"] * 3, **kwargs) == [1.0, 0.0, 0.0]
    assert orms["external_vase_format"]()(["lekythos", ""], solution=["x", "y"]) == [1.0, 0.0]


def test_a_users_function_replaces_our_reward_of_the_same_name(tmp_path: Path) -> None:
    path = plugin(
        tmp_path,
        "def external_vase_acc(responses, references):\n    return [0.5 if a == b else 0.0 for a, b in zip(responses,"
        " references)]\n",
    )
    swift_plugin.register_user_plugin(path, ["external_vase_acc", "external_vase_format"])
    assert scored("external_vase_acc", ["a", "b"], solution=["a", "a"], attribute=["shape", "shape"]) == [0.5, 0.0]
    assert orms["external_vase_format"] is swift_plugin.VaseFormat


def test_orm_classes_are_found_registered_or_not(tmp_path: Path) -> None:
    swift_plugin.register_user_plugin(plugin(tmp_path, CLASS_FORM), ["mine", "Unregistered"])
    assert scored("mine", ["abc"]) == [3.0]
    assert scored("Unregistered", ["abc", "d"]) == [0.25, 0.25]


@pytest.mark.parametrize(
    ("text", "names", "said"),
    [
        ("def (", ["f"], "can't be imported .SyntaxError"),
        ("import nowhere_at_all", ["f"], "can't be imported .No module named 'nowhere_at_all'.*image of grpo"),
        ("def vase_reward(responses, references):\n    return []\n", ["vase_rewad"], "did you mean 'vase_reward'"),
    ],
)
def test_an_unusable_file_of_rewards_is_refused(text: str, names: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"(?i){said}"):
        swift_plugin.register_user_plugin(plugin(tmp_path, text), names)


FORMS = """
from __future__ import annotations
import asyncio, dataclasses, functools
import numpy, torch
from swift.rewards import AsyncORM, orms

def original(responses, references): return [float(a == b) for a, b in zip(responses, references)]
def trl(completions, **kwargs): return [len(kwargs["attribute"][0])] * len(completions)
def trl_solution(completions, solution, **kwargs): return original(completions, solution)
def trl_prompts(prompts, completions, completion_ids, **kwargs): return [p[-1]["role"] == "user" for p in prompts]
def a_column(completions, attribute): return [float(value == "shape") for value in attribute]
def a_default(completions, scale=2, attribute=None): return [scale * len(attribute)] * len(completions)
def two_names(x, y): return original(x, y)
def swapped(y_true, y_pred): return [float(text == "kylix") for text in y_pred]
def anything(*args): return original(*args)
def keywords(**kwargs): return original(kwargs["completions"], kwargs["solution"])
def of_numpy(completions): return numpy.array([0.5] * len(completions), dtype="float32")
def of_torch(completions): return torch.full((len(completions),), 0.5, requires_grad=True)
def truth_values(completions): return (text == "kylix" for text in completions)
def some(completions): return [None if text == "kylix" else 1 for text in completions]
async def waiting(responses, references):
    await asyncio.sleep(0)
    return original(responses, references)
lambda_waiting = lambda completions: waiting(completions, completions)
partial = functools.partial(lambda scale, completions: [scale] * len(completions), 3)

@dataclasses.dataclass
class Kind:
    scale: float = 0.5
    def __call__(self, completions, **kwargs): return [self.scale] * len(completions)
class Waiting(AsyncORM):
    async def __call__(self, completions, solution, **kwargs): return original(completions, solution)
class Holder:
    @staticmethod
    def score(completions): return [1] * len(completions)
static, instance = Holder.score, Kind(4)
orms["registered"] = original
"""


def test_rewards_in_every_form_are_called_by_their_signature(tmp_path: Path) -> None:
    right, ones = [1.0, 0.0], [1.0, 1.0]
    expected = {
        "original": right,
        "trl": [5.0, 5.0],
        "trl_solution": right,
        "trl_prompts": ones,
        "a_column": ones,
        "a_default": [4.0, 4.0],
        "two_names": right,
        "swapped": right,
        "anything": right,
        "keywords": right,
        "of_numpy": [0.5, 0.5],
        "of_torch": [0.5, 0.5],
        "truth_values": right,
        "waiting": right,
        "lambda_waiting": ones,
        "partial": [3.0, 3.0],
        "Kind": [0.5, 0.5],
        "Waiting": right,
        "static": ones,
        "instance": [4.0, 4.0],
        "registered": right,
    }
    swift_plugin.register_user_plugin(plugin(tmp_path, FORMS), [*expected, "some"])
    found = {name: scored(name, ["kylix", "amphora"], attribute=["shape", "shape"]) for name in expected}
    assert found == expected
    does_not_apply, applies = scored("some", ["kylix", "amphora"])
    assert (math.isnan(does_not_apply), applies) == (True, 1.0)


def test_rewards_that_share_a_class_are_logged_separately(tmp_path: Path) -> None:
    text = CLASS_FORM + "orms['other'] = Mine\n"
    swift_plugin.register_user_plugin(plugin(tmp_path, text), ["mine", "other", "Unregistered"])
    assert [orms[name].__name__ for name in ("mine", "other", "Unregistered")] == ["mine", "other", "Unregistered"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def f(completions):\n    return [1.0]", r"returned 1 scores for 3 completions, .*grpo\.jsonl, line 1 .*'a'"),
        ("def f(completions):\n    return ['x', 1, 1]", r"returned 'x' for grpo\.jsonl, line 1 .*'a'; .*finite number"),
        ("def f(completions):\n    return [0, 1, float('nan')]", r"'nan' for grpo\.jsonl, line 3 .*'c'; .* or None"),
        ("def f(completions):\n    return [[0], [1], [1]]", r"returned '\[0\]' for grpo\.jsonl, line 1"),
        ("def f(completions):\n    return None", "returned NoneType 'None'; it must return a list"),
        ("def f(completions):\n    return '111'", "returned str '111'; it must return a list"),
        ("def f(completions):\n    return {'score': [1, 1, 1]}", "returned dict"),
        ("def f(completions):\n    raise SystemExit(2)", r"SystemExit: 2 in mine\.py, line 2 for grpo\.jsonl, line 1"),
        (
            "def f(a, b):\n    return [1 / (text != 'r1') for text in b]",
            r"ZeroDivisionError: division by zero in mine\.py, line 2 for grpo\.jsonl, line 2 \('Which shape\?'\) and"
            " the completion 'b'; correct",
        ),
        (
            "async def f(a, b):\n    return [1 / (text != 'r1') for text in b]",
            r"division by zero in mine\.py, line 2 for grpo\.jsonl, line 2",
        ),
        ("def f(completions):\n    return [1 / (4 - len(completions)) * 0 + completions[3]]", "line 1 "),
        ("def f(completions):\n    return [t[0]['content'] for t in completions]", "a completion is a text here"),
        ("def f(completions, vase):\n    return [1.0] * 3", "needs the column 'vase'|nothing is passed for 'vase'"),
    ],
)
def test_a_mistake_of_a_reward_is_reported_with_the_row(
    body: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plugin(tmp_path, body + "\n")
    row = {"messages": [{"role": "user", "content": "<image>Which shape?"}]}
    (tmp_path / "grpo.jsonl").write_text("".join(json.dumps({**row, "solution": f"r{n}"}) + "\n" for n in range(3)))
    monkeypatch.setenv("VASEVQA_REWARD_PLUGIN", str(path))
    monkeypatch.setenv("VASEVQA_REWARD_ROWS", str(tmp_path / "grpo.jsonl"))
    swift_plugin.register_user_plugin(path, ["f"])
    with pytest.raises(ConfigError, match=f"(?s)The reward f.*{said}"):
        scored("f", ["a", "b", "c"], solution=["r0", "r1", "r2"])


def test_a_full_gpu_or_disk_is_not_reported_as_a_mistake_of_the_reward(tmp_path: Path) -> None:
    text = """
import errno, torch
def gpu(completions): raise torch.OutOfMemoryError("CUDA out of memory")
async def disk(completions): raise OSError(errno.ENOSPC, "No space left on device", "/volume/cache")
"""
    swift_plugin.register_user_plugin(plugin(tmp_path, text), ["gpu", "disk"])
    with pytest.raises(torch.OutOfMemoryError):
        scored("gpu", ["a"])
    with pytest.raises(OSError, match="No space left"):
        scored("disk", ["a"])


def test_a_class_with_unknown_arguments_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    text = "class F:\n    def __init__(self, threshold): ...\n    def __call__(self, completions): ...\n"
    with pytest.raises(ConfigError, match=r"The reward F can't be created: its __init__.*'threshold'.*defaults"):
        swift_plugin.register_user_plugin(plugin(tmp_path, text), ["F"])


def test_a_class_that_can_not_be_created_is_refused(tmp_path: Path) -> None:
    text = "class F:\n    def __init__(self): open('/nowhere/weights')\n    def __call__(self, completions): ...\n"
    swift_plugin.register_user_plugin(plugin(tmp_path, text), ["F"])
    with pytest.raises(ConfigError, match=r"The reward F can't be created: FileNotFoundError"):
        orms["F"](args=None)


def test_a_reward_of_ms_swift_that_lacks_a_package_is_refused_before_a_model_is_loaded() -> None:
    swift_plugin.check_swifts_own(["format", "cosine", "external_vase_acc"])
    with pytest.raises(ConfigError, match=r"The reward accuracy of ms-swift lacks a package .*math_verify"):
        swift_plugin.check_swifts_own(["accuracy"])


def test_a_sampled_answer_holds_no_picture_token(qwen: Path) -> None:
    """One picture token in a sampled answer would end GRPO: the answer would have more pictures than the row."""
    from swift.infer_engine import RequestConfig
    from swift.infer_engine.utils import prepare_generation_config
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, tokenizer = AutoModelForImageTextToText.from_pretrained(qwen), AutoProcessor.from_pretrained(qwen).tokenizer
    places = {model.config.image_token_id, model.config.video_token_id}

    def sampled() -> set[int]:
        torch.manual_seed(0)
        settings = prepare_generation_config(model.generation_config, RequestConfig(16, temperature=1.0), tokenizer)
        ids = tokenizer("Which shape is this?", return_tensors="pt").input_ids.expand(8, -1)
        written = model.generate(input_ids=ids, generation_config=settings)[:, ids.shape[1] :]
        return set(written.flatten().tolist())

    with torch.no_grad():  # now the model prefers these tokens
        weights = model.get_input_embeddings().weight
        ids = tokenizer("Which shape is this?", return_tensors="pt").input_ids
        weights[sorted(places)] = 3 * weights[model(input_ids=ids).logits[0, -1].argmax()]
    assert places & sampled()
    sample_no_pictures(model)
    assert not places & sampled()
