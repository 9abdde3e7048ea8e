"""The cause of an error in ms-swift, from the frames of its traceback. The real process gives the same result."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

from tests.fakes import FolderOutput, RecordingProgress
from tests.training.conftest import OPTIONS, grpo_params, sft_call, write_rows
from vasevqa.errors import ConfigError, DataError
from vasevqa.spec import StageCall
from vasevqa.stages import grpo, sft
from vasevqa.training.swift import plugin as swift_plugin
from vasevqa.training.swift.blame import blame, blaming, is_ours

PACKAGES = "/venv/lib/python3.11/site-packages/"


def raised(code: str, *files: str) -> BaseException:
    """Run `code` in the last of `files`, where each file calls the next file, and return the error."""
    environment: dict[str, Any] = {}
    source, call = f"def encode():\n    {code}\n", "encode"
    for number, file in enumerate(reversed(files)):
        exec(compile(source, file, "exec"), environment)
        source, call = f"def step{number}():\n    {call}()\n", f"step{number}"
    exec(compile(source, "worker.py", "exec"), environment)
    with pytest.raises(Exception) as caught:
        environment[call]()
    return caught.value


LOADING = f"{PACKAGES}transformers/modeling_utils.py"
SWIFT = f"{PACKAGES}swift/pipelines/train/sft.py"
CHAINED = """try:
        open('/nowhere/row.jpg')
    except OSError as error:
        raise RuntimeError('no row') from error"""


@pytest.mark.parametrize(
    ("code", "files", "exit_code", "said"),
    [
        (
            "raise ValueError('x')",
            (SWIFT, f"{PACKAGES}swift/dataset/loader.py"),
            3,
            "rows of rows.jsonl .ValueError: x",
        ),
        ("raise ValueError('x')", (SWIFT, f"{PACKAGES}swift/template/base.py"), 3, "correct or remove these rows"),
        ("raise ValueError('x')", (SWIFT, f"{PACKAGES}swift/dataset/a.py", f"{PACKAGES}PIL/Image.py"), 3, "the rows"),
        (CHAINED, (SWIFT, f"{PACKAGES}swift/template/vision_utils.py"), 3, "RuntimeError: no row"),
        ("raise KeyError('x')", (SWIFT, f"{PACKAGES}swift/model/register.py", LOADING), 3, "model /m can't be loaded"),
        ("1 / 0", (SWIFT, "/volume/mine.py"), 2, "mine.py, line 2 raised ZeroDivisionError"),
        ("assert False, 'x'", (SWIFT, f"{PACKAGES}swift/rewards/orm.py"), 2, "remove it from reward_funcs"),
        ("raise OSError(28, 'No space left', '/v/a')", (SWIFT,), 74, "/v/a: the disk is full"),
        (f"raise OSError({errno.ESTALE}, 'Stale file handle')", (SWIFT,), 75, "another attempt may succeed"),
        (f"raise OSError({errno.EREMOTEIO}, 'Remote I/O error')", (SWIFT,), 75, "another attempt may succeed"),
        ("raise ValueError('I/O error: Input/output error .os error 5)'.replace('.', '('))", (SWIFT,), 75, "EIO"),
        ("raise MemoryError", (SWIFT,), 71, "memory does not suffice"),
        ("raise RuntimeError('Found no NVIDIA driver')", (SWIFT,), 5, "nvidia-smi"),
        ("raise RuntimeError('CUDA out of memory')", (SWIFT, f"{PACKAGES}swift/model/register.py"), 4, "out of memory"),
        ("raise KeyError('x')", (SWIFT,), 1, "KeyError: 'x'"),
        # A patched function of ms-swift in the forward pass doesn't mean that a model is being loaded.
        ("raise KeyError('x')", (SWIFT, f"{PACKAGES}swift/model/patcher.py"), 1, "KeyError: 'x'"),
    ],
)
def test_the_frames_decide_the_cause_of_an_error(
    code: str, files: tuple[str, ...], exit_code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VASEVQA_REWARD_PLUGIN", "/volume/mine.py")
    result = blame(raised(code, *files), "/m", "rows.jsonl")
    assert (result.exit_code, said in result.message.replace("(", ".")) == (exit_code, True), result.message


def test_an_error_in_our_code_is_not_reported_as_a_refused_argument() -> None:
    assert is_ours(raised("raise ImportError('x')", SWIFT, swift_plugin.__file__))
    assert not is_ours(raised("raise ValueError('x')", swift_plugin.__file__, SWIFT))


def test_an_error_of_ms_swift_in_this_process_is_explained(tmp_path: Path) -> None:
    loading = raised("raise KeyError('added_tokens')", SWIFT, f"{PACKAGES}swift/model/register.py", LOADING)
    with pytest.raises(DataError, match=f"The model {tmp_path} can't be loaded"), blaming(tmp_path):
        raise loading
    with pytest.raises(KeyError), blaming(tmp_path):
        raise raised("raise KeyError('x')", SWIFT)


class _Unreadable(Dataset[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, number: int) -> int:
        raise raised("raise ValueError('no such picture')", f"{PACKAGES}swift/template/base.py")


def test_the_frames_of_a_process_that_prepares_rows_decide_the_cause() -> None:
    with pytest.raises(ValueError, match="DataLoader worker") as caught:
        next(iter(DataLoader(_Unreadable(), num_workers=1)))
    result = blame(caught.value, "/m", "rows.jsonl")
    assert result.exit_code == 3
    assert "rows of rows.jsonl (ValueError: no such picture); correct or remove these rows" in result.message


def test_a_broken_tokenizer_is_reported_as_an_error_of_the_model(tmp_path: Path, qwen: Path, dataset: Path) -> None:
    model = shutil.copytree(qwen, tmp_path / "model")
    (model / "tokenizer.json").write_text("{}")
    call = sft_call({"model": model, "dataset": dataset}, tmp_path / "out", max_steps=1)
    with pytest.raises(DataError, match=rf"The model {model} can't be loaded .KeyError.*copy the whole folder again"):
        sft.run(call)


def test_rows_that_ms_swift_drops_are_reported_as_errors_of_the_rows(tmp_path: Path, qwen: Path, dataset: Path) -> None:
    rows = shutil.copytree(dataset, tmp_path / "rows")
    turns = [{"role": "critic", "content": "<image>Which?"}, {"role": "assistant", "content": "kylix"}]
    write_rows(rows / "sft.jsonl", [{"messages": turns, "images": ["images/00.jpg"]}] * 4)
    call = sft_call({"model": qwen, "dataset": rows}, tmp_path / "out", max_steps=1)
    with pytest.raises(DataError, match=r"sft\.jsonl, line 1 has a turn of the role 'critic'"):
        sft.run(call)


REWARDS = """
def sometimes(completions, **kwargs):
    return [None] * len(completions)

async def fails(completions, solution, attribute, **kwargs):
    assert isinstance(solution[0], dict), solution
    return [float(text in answer) for text, answer in zip(solution, completions)]
"""


def test_an_error_in_a_reward_is_reported_and_answers_without_reward_are_counted(
    tmp_path: Path, qwen: Path, dataset: Path
) -> None:
    rows = shutil.copytree(dataset, tmp_path / "rows")
    lines = [json.loads(line) for line in (rows / "grpo.jsonl").read_text().splitlines()]
    message = {"role": "assistant", "content": "lekythos"}
    write_rows(rows / "grpo.jsonl", [{**row, "solution": message} for row in lines])
    (tmp_path / "mine.py").write_text(REWARDS)
    inputs = {"model": qwen, "dataset": rows, "plugin": tmp_path / "mine.py"}

    def run(name: str) -> tuple[FolderOutput, RecordingProgress]:
        output, progress = FolderOutput(tmp_path / name), RecordingProgress()
        params = grpo_params(max_steps=1, reward_funcs=[name])
        grpo.run(StageCall(params, grpo.GrpoOptions(**OPTIONS), inputs, output, progress))
        return output, progress

    with pytest.raises(
        ConfigError, match=r"fails raised TypeError.* in mine\.py, line 7 for grpo\.jsonl, line \d .'What"
    ):
        run("fails")
    output, progress = run("sometimes")
    summary = json.loads((output.root / "training_summary.json").read_text())
    assert (summary["unrewarded"], summary["last_reward"]) == (8, 0.0)
    assert "every reward returned None for 8 answers; they were scored 0" in progress.notes
