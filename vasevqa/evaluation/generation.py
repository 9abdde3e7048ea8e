"""Generate answers with a vision-language model in batches.

After an interruption, only the missing answers are generated. Only one model is in memory at a time.
"""

from __future__ import annotations

import gc
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

import torch
from PIL import Image

from vasevqa.curation.devices import DTYPES
from vasevqa.curation.images import Unreadable, open_image
from vasevqa.dataset.rows import Row
from vasevqa.errors import ConfigError, DataError
from vasevqa.evaluation.params import EvaluateParams
from vasevqa.journal import Journal
from vasevqa.storage import refuse_failed
from vasevqa.text import IMAGE_TAG, first_line


class ChatMessage(TypedDict):
    """A turn in the format of transformers' processors: a list of texts and image placeholders, in order."""

    role: str
    content: list[dict[str, str]]


@dataclass(frozen=True)
class Answer:
    """An answer by greedy decoding.

    `probability` is the probability that the model assigns to the whole answer, or None if it is unknown. `samples`
    holds further answers to the same question, sampled at a temperature.
    """

    text: str
    probability: float | None = None
    samples: tuple[str, ...] = ()


class Answers(Protocol):
    """A model that answers prompts with images."""

    def __call__(self, rows: Sequence[Row]) -> list[Answer]:
        """Return the answer to each row, in the order of `rows`."""


def prompt_of(row: Row) -> list[ChatMessage]:
    """Return the turns before the true answer as chat messages, with image placeholders in place of image tags."""
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
    """Return a digest of a row and of `who`, which identifies the model and its settings (see `identity`).

    A stored answer is used again only if its digest is the same.
    """
    return hashlib.sha256(json.dumps([who, row["messages"], row["images"]], sort_keys=True).encode()).hexdigest()[:16]


def identity(model: Path, params: EvaluateParams) -> str:
    """Return a digest of a model and the generation settings.

    Names, sizes and modification times of the model's files are used. The weights are not read.
    """
    stats = [
        (file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(model.iterdir()) if file.is_file()
    ]
    asked = params.model_dump(include={"max_new_tokens", "max_pixels", "torch_dtype", "engine"})
    if params.samples:
        asked |= params.model_dump(include={"samples", "temperature", "seed"})
    return hashlib.sha256(json.dumps([stats, asked], sort_keys=True).encode()).hexdigest()[:16]


def _is_answer(row: object) -> bool:
    return isinstance(row, dict) and {"row", "answer", "probability", "samples"} <= row.keys()


def answer_all(
    rows: Sequence[Row],
    load: Callable[[], Answers],
    kept: Path,
    batch_size: int,
    done: Callable[[int], None],
    who: str = "",
) -> list[Answer]:
    """Return the answer to every row, in the order of `rows`.

    `kept` is a file of stored answers. The model answers only the rows without a stored answer. `load` loads the model,
    and it is not called if no answer is missing. `who` identifies the model and its settings (see `identity`). The
    answers to a batch are appended to `kept` immediately. A batch holds rows of similar length, so that there is little
    padding. `done` is called after each batch with the number of its rows, and at the start with the number of stored
    answers.
    """
    journal = Journal(kept)
    have = {
        str(row["row"]): Answer(str(row["answer"]), row["probability"], tuple(row["samples"]))
        for row in journal.rows
        if _is_answer(row)
    }
    keys = [digest(row, who) for row in rows]
    missing = [number for number, key in enumerate(keys) if key not in have]
    missing.sort(key=lambda number: (len(json.dumps(rows[number]["messages"])), number))
    done(len(rows) - len(missing))
    if missing:
        answers = load()
        for begin in range(0, len(missing), batch_size):
            batch = missing[begin : begin + batch_size]
            said = dict(zip((keys[number] for number in batch), answers([rows[n] for n in batch]), strict=True))
            journal.append(
                {"row": key, "answer": one.text, "probability": one.probability, "samples": one.samples}
                for key, one in said.items()
            )
            have |= said
            done(len(batch))
        del answers
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return [have[key] for key in keys]


class TransformersAnswers:
    """A model that runs in transformers, with greedy decoding. Raise DataError if its folder can't be loaded."""

    def __init__(self, folder: Path, root: Path, params: EvaluateParams, device: torch.device) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        try:
            self._processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            dtype = DTYPES[params.torch_dtype]
            model = AutoModelForImageTextToText.from_pretrained(
                folder, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            refuse_failed(error, folder)
            first = first_line(error)
            raise DataError(
                f"The model {folder} can't be loaded ({type(error).__name__}: {first}); copy or train it again."
            ) from None
        self._model = model.to(device).eval()
        self._processor.tokenizer.padding_side = "left"
        self._resizing = Resizing.of(self._processor, params.max_pixels)
        self._root, self._device, self._params = root, device, params

    @torch.inference_mode()
    def __call__(self, rows: Sequence[Row]) -> list[Answer]:
        """Return the answers to a batch of rows."""
        batch = self._batch(rows)
        sure = _Sureness()
        greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        generated = self._model.generate(
            **batch, max_new_tokens=self._params.max_new_tokens, logits_processor=[sure], **greedy
        )
        said = generated[:, batch["input_ids"].shape[1] :]
        samples = self._sampled(rows)
        return [
            Answer(text, probability, several)
            for text, probability, several in zip(
                self._texts(said), sure.probabilities(said, self._ends()), samples, strict=True
            )
        ]

    def _sampled(self, rows: Sequence[Row]) -> list[tuple[str, ...]]:
        """Return the sampled answers to each row. Captions are not sampled, because sampled captions always differ."""
        count = self._params.samples
        asked = [number for number, row in enumerate(rows) if count and row.get("attribute") != "caption"]
        found: list[tuple[str, ...]] = [() for _ in rows]
        if asked:
            batch = self._batch([rows[number] for number in asked])
            torch.manual_seed(int(digest(rows[asked[0]], str(self._params.seed)), 16) % 2**63)
            generated = self._model.generate(
                **batch,
                max_new_tokens=self._params.max_new_tokens,
                do_sample=True,
                temperature=self._params.temperature,
                top_p=1.0,
                top_k=0,
                num_return_sequences=count,
            )
            texts = self._texts(generated[:, batch["input_ids"].shape[1] :])
            for place, number in enumerate(asked):
                found[number] = tuple(texts[place * count : (place + 1) * count])
        return found

    def _texts(self, tokens: torch.Tensor) -> list[str]:
        return [str(text).strip() for text in self._processor.batch_decode(tokens, skip_special_tokens=True)]

    def _ends(self) -> set[int]:
        """Return the ids of the tokens that end an answer."""
        ends = self._model.generation_config.eos_token_id
        return set(ends) if isinstance(ends, list) else {ends} if ends is not None else set()

    def _batch(self, rows: Sequence[Row]) -> Any:
        """Return the model's inputs for `rows`, on the model's device."""
        texts = [
            self._processor.apply_chat_template(prompt_of(row), tokenize=False, add_generation_prompt=True)
            for row in rows
        ]
        images = [[picture(self._root / image, self._resizing) for image in row["images"]] for row in rows]
        seen = images if any(images) else None  # without pictures, the processor needs None
        told = self._resizing.processor_arguments if seen else {}
        return self._processor(text=texts, images=seen, padding=True, return_tensors="pt", **told).to(self._device)


class _Sureness:
    """A logits processor that records the log probability of each token in greedy decoding.

    transformers calls this object as the last logits processor. transformers could also return the scores itself
    (output_scores), but then it would store the logits of the whole vocabulary for every token.
    """

    def __init__(self) -> None:
        self._chosen: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._chosen.append(scores.float().log_softmax(-1).amax(-1))
        return scores

    def probabilities(self, tokens: torch.Tensor, ends: set[int]) -> list[float]:
        """Return the probability of each of N answers, including the token that ends the answer.

        `tokens` (N, T) holds the generated tokens. `ends` holds the ids of the tokens that end an answer.
        """
        logarithms = torch.stack(self._chosen, dim=1).cpu()
        found = []
        for row, told in zip(tokens.cpu().tolist(), logarithms, strict=True):
            length = next((at + 1 for at, token in enumerate(row) if token in ends), len(row))
            found.append(math.exp(float(told[:length].sum())))
        return found


class VllmAnswers:
    """A model that runs in vLLM, with greedy decoding. Raise ConfigError if vLLM isn't installed."""

    def __init__(self, folder: Path, root: Path, params: EvaluateParams) -> None:
        try:
            from vllm import LLM, SamplingParams
        except ImportError:
            raise ConfigError(
                "Engine vllm needs the package vllm, which is not installed here; install it (see locks/gpu.txt), or"
                " set `engine: transformers`."
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
        self._sampling = SamplingParams(temperature=0.0, max_tokens=params.max_new_tokens, logprobs=1)
        self._further = SamplingParams(
            n=max(1, params.samples),
            temperature=params.temperature,
            max_tokens=params.max_new_tokens,
            seed=params.seed,
        )
        self._samples = params.samples
        self._resizing, self._root = Resizing.of(self._processor, params.max_pixels), root

    def __call__(self, rows: Sequence[Row]) -> list[Answer]:
        """Return the answers to `rows`. vLLM itself divides the rows into batches."""
        asked = [
            {
                "prompt": self._processor.apply_chat_template(
                    prompt_of(row), tokenize=False, add_generation_prompt=True
                ),
                **self._pictures(row),
            }
            for row in rows
        ]
        first = [result.outputs[0] for result in self._engine.generate(asked, self._sampling, use_tqdm=False)]
        numbers = [number for number, row in enumerate(rows) if self._samples and row.get("attribute") != "caption"]
        further: dict[int, tuple[str, ...]] = {}
        if numbers:
            results = self._engine.generate([asked[number] for number in numbers], self._further, use_tqdm=False)
            for number, result in zip(numbers, results, strict=True):
                further[number] = tuple(output.text.strip() for output in result.outputs)
        return [
            Answer(
                output.text.strip(),
                None if output.cumulative_logprob is None else math.exp(output.cumulative_logprob),
                further.get(number, ()),
            )
            for number, output in enumerate(first)
        ]

    def _pictures(self, row: Row) -> dict[str, object]:
        pictures = [picture(self._root / image, self._resizing) for image in row["images"]]
        if not pictures:
            return {}
        return {"multi_modal_data": {"image": pictures}, "mm_processor_kwargs": self._resizing.processor_arguments}


@dataclass(frozen=True)
class Resizing:
    """The rule that resizes pictures for a model.

    For Qwen's processors, pictures are resized as in training. For all other processors, pictures with more than
    `max_pixels` are reduced, and then the processor resizes them by its own rule.
    """

    max_pixels: int
    patch: int = 0  # pixels per side; 0: the processor's own rule

    @classmethod
    def of(cls, processor: Any, max_pixels: int) -> Resizing:
        """Return the rule for a processor of transformers."""
        images = getattr(processor, "image_processor", None)
        return cls(max_pixels, int(images.patch_size) if images is not None and hasattr(images, "merge_size") else 0)

    @property
    def processor_arguments(self) -> dict[str, bool]:
        """The arguments that prevent the processor from resizing a picture again."""
        return {"do_resize": False} if self.patch else {}

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the resized image.

        For Qwen's processors, the function that ms-swift calls in training is used (qwen_vl_utils.fetch_image).
        """
        if not self.patch:
            pixels = image.width * image.height
            scale = (self.max_pixels / pixels) ** 0.5
            smaller = max(28, int(image.width * scale)), max(28, int(image.height * scale))
            return image if scale >= 1 else image.resize(smaller)
        from qwen_vl_utils import fetch_image

        tokens = max(4, self.max_pixels // (2 * self.patch) ** 2)  # ms-swift rounds MAX_PIXELS down to whole tokens
        limits = {"max_pixels": tokens * (2 * self.patch) ** 2, "min_pixels": 4 * (2 * self.patch) ** 2}
        return fetch_image({"image": image, **limits}, image_patch_size=self.patch)


def open_picture(path: Path, cover: int | None = None) -> Image.Image:
    """Open a picture of a row with `open_image`. Raise DataError if the picture can't be read."""
    try:
        return open_image(path, cover)
    except Unreadable as error:
        raise _unfit(path, error.reason) from None


def picture(path: Path, resizing: Resizing) -> Image.Image:
    """Return a picture of a row as an RGB image, resized by `resizing`.

    Raise DataError if the picture can't be read, or if it is too narrow for the model.
    """
    image = open_picture(path)
    try:
        return resizing(image)
    except ValueError as error:
        raise _unfit(path, str(error)) from None


def _unfit(path: Path, reason: str) -> DataError:
    return DataError(f"The image {path} can't be read ({reason}); build the dataset again.")
