"""Answers of a vision-language model, in batches, resumable, with one model in memory at a time."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypedDict

import torch

from vasevqa.curation.images import Unreadable, open_image
from vasevqa.dataset.rows import Row
from vasevqa.errors import ConfigError, DataError
from vasevqa.evaluation.params import EvaluateParams
from vasevqa.journal import Journal
from vasevqa.text import IMAGE_TAG, first_line

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


class ChatMessage(TypedDict):
    """A turn as processors take it: text and places for images, in order."""

    role: str
    content: list[dict[str, str]]


class Answers(Protocol):
    """Something that answers: prompts with their images to texts."""

    def __call__(self, rows: Sequence[Row]) -> list[str]:
        """The answer to each row."""


def prompt_of(row: Row) -> list[ChatMessage]:
    """A row's turns up to the truth, as chat messages with the images in place of their tags."""
    messages = []
    turns = row["messages"][:-1] if row["messages"][-1]["role"] == "assistant" else row["messages"]
    for turn in turns:
        parts: list[dict[str, str]] = []
        for number, piece in enumerate(str(turn["content"]).split(IMAGE_TAG)):
            if number:
                parts.append({"type": "image"})
            if piece.strip():
                parts.append({"type": "text", "text": piece.strip()})
        messages.append(ChatMessage(role=turn["role"], content=parts))
    return messages


def digest(row: Row, who: str = "") -> str:
    """What stands for a question to `who`: an answer kept from before counts only for the same."""
    return hashlib.sha256(json.dumps([who, row["messages"], row["images"]], sort_keys=True).encode()).hexdigest()[:16]


def identity(model: Path, params: EvaluateParams) -> str:
    """What stands for a model in a folder and the way it is asked, without reading its weights."""
    stats = [
        (file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(model.iterdir()) if file.is_file()
    ]
    asked = params.model_dump(include={"max_new_tokens", "max_pixels", "torch_dtype", "engine"})
    return hashlib.sha256(json.dumps([stats, asked], sort_keys=True).encode()).hexdigest()[:16]


def _is_answer(row: object) -> bool:
    return isinstance(row, dict) and {"row", "answer"} <= row.keys()


def answer_all(
    rows: Sequence[Row],
    load: Callable[[], Answers],
    kept: Path,
    batch_size: int,
    done: Callable[[int], None],
    who: str = "",
) -> list[str]:
    """The answer of `who` to every row, in order.

    Each batch is appended to the file `kept` at once; the model is loaded only if one is missing.

    Rows are taken in the order of their length, so that a batch is padded little.
    """
    journal = Journal(kept)
    have = {str(row["row"]): str(row["answer"]) for row in journal.rows if _is_answer(row)}
    keys = [digest(row, who) for row in rows]
    missing = [number for number, key in enumerate(keys) if key not in have]
    missing.sort(key=lambda number: (len(json.dumps(rows[number]["messages"])), number))
    done(len(rows) - len(missing))
    if missing:
        answers = load()
        for begin in range(0, len(missing), batch_size):
            batch = missing[begin : begin + batch_size]
            said = dict(zip((keys[number] for number in batch), answers([rows[n] for n in batch]), strict=True))
            journal.append({"row": key, "answer": text} for key, text in said.items())
            have |= said
            done(len(batch))
        del answers
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return [have[key] for key in keys]


class TransformersAnswers:
    """Greedy answers by transformers. DataError for a folder that can't be loaded."""

    def __init__(self, folder: Path, root: Path, params: EvaluateParams, device: torch.device) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        try:
            self._processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            dtype = DTYPES[params.torch_dtype]
            model = AutoModelForImageTextToText.from_pretrained(
                folder, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            first = first_line(error)
            raise DataError(
                f"The model {folder} can't be loaded ({type(error).__name__}: {first}); copy or train it again."
            ) from None
        self._model = model.to(device).eval()
        self._processor.tokenizer.padding_side = "left"
        self._root, self._device, self._params = root, device, params

    @torch.inference_mode()
    def __call__(self, rows: Sequence[Row]) -> list[str]:
        """Answers to rows, batched."""
        texts = [
            self._processor.apply_chat_template(prompt_of(row), tokenize=False, add_generation_prompt=True)
            for row in rows
        ]
        images = [[picture(self._root / image, self._params.max_pixels) for image in row["images"]] for row in rows]
        batch = self._processor(text=texts, images=images, padding=True, return_tensors="pt").to(self._device)
        generation = {
            "max_new_tokens": self._params.max_new_tokens,
            "do_sample": False,
            "temperature": None,
            "top_p": None,
            "top_k": None,
        }
        found = self._model.generate(**batch, **generation)
        answers = self._processor.batch_decode(found[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        return [str(answer).strip() for answer in answers]


class VllmAnswers:
    """Greedy answers by vLLM. ConfigError where it isn't installed."""

    def __init__(self, folder: Path, root: Path, params: EvaluateParams) -> None:
        try:
            from vllm import LLM, SamplingParams
        except ImportError:
            raise ConfigError(
                "engine vllm needs the package vllm, which is not installed here; see locks/gpu.txt, or use engine"
                " transformers."
            ) from None
        from transformers import AutoProcessor

        self._processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self._engine = LLM(
            model=str(folder),
            dtype=params.torch_dtype,
            seed=params.seed,
            trust_remote_code=False,
            limit_mm_per_prompt={"image": 16},
        )
        self._sampling = SamplingParams(temperature=0.0, max_tokens=params.max_new_tokens)
        self._root, self._params = root, params

    def __call__(self, rows: Sequence[Row]) -> list[str]:
        """Answers to rows; vLLM batches by itself."""
        asked = [
            {
                "prompt": self._processor.apply_chat_template(
                    prompt_of(row), tokenize=False, add_generation_prompt=True
                ),
                "multi_modal_data": {
                    "image": [picture(self._root / image, self._params.max_pixels) for image in row["images"]]
                },
            }
            for row in rows
        ]
        return [
            result.outputs[0].text.strip() for result in self._engine.generate(asked, self._sampling, use_tqdm=False)
        ]


def picture(path: Path, max_pixels: int) -> Any:
    """An RGB image of at most `max_pixels`, as training saw it. DataError if it can't be read."""
    try:
        image = open_image(path)
    except Unreadable as error:
        raise DataError(
            f"The image {path} of the evaluation can't be read ({error.reason}); build the dataset again."
        ) from None
    pixels = image.width * image.height
    if pixels > max_pixels:
        scale = (max_pixels / pixels) ** 0.5
        image = image.resize((max(28, int(image.width * scale)), max(28, int(image.height * scale))))
    return image
