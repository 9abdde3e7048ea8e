"""Train the tiny Qwen2.5-VL to describe drawn vases. The training takes a few minutes on two cores.

First the vision tower is trained to classify outlines, grounds and clays, with linear heads on the mean of its tokens.
Then the heads are discarded, and the tower is frozen. Next the text model is trained to answer questions about the
tower's tokens. Its loss is computed only over the tokens of the answers.

The vocabulary has 151,936 tokens, but the tokenizer produces only about 1,560 of them. All unused tokens have zero
embeddings, so their logits are zero. In the softmax, the unused tokens are therefore equivalent to one class with the
constant logit log(number of unused tokens). This is exact, and much cheaper than a softmax over all tokens.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vasevqa import files
from vasevqa.curation.clip import OPENAI_MEAN, OPENAI_STD
from vasevqa.sample import tiny_qwen
from vasevqa.sample.dataset import OnProgress
from vasevqa.sample.lessons import CLAYS, GROUNDS, OUTLINES, VIEWS, Seen, look, questions, shots_of, vases_to_learn_from
from vasevqa.sample.making import augmented, draw_pictures, make_once, reproducible

VERSION = 1  # increased when the code makes a different model from the same settings
SIZES = tiny_qwen.Sizes(layers=3, depth=3, width=64, heads=4)
SIDE, MARGIN = 112, 8  # in pixels: the side of the model's input picture, and the margin for crops
TOKENS = (SIDE // tiny_qwen.PATCH // tiny_qwen.MERGED) ** 2
LOOKED_AT, TOLD = 64, 32  # pictures per step, for the vision tower and for the text model
RATE, DECAY, WARMUP = 3e-3, 0.02, 0.15
TAUGHT_ON = "taught_on.json"  # holds the ids of the vases in the training pictures


@dataclass(frozen=True)
class Course:
    """The length of the training."""

    vases: int = 1300
    looking: int = 260  # training steps of the vision tower
    telling: int = 260  # training steps of the text model


def teach_tiny_qwen(
    folder: Path, seed: int = 0, course: Course = Course(), on_progress: OnProgress | None = None
) -> bool:
    """Train a tiny Qwen2.5-VL, and write it as a Hugging Face folder (42 MB).

    Return False if the folder already holds this model. A tiny Qwen2.5-VL with different settings in the folder is
    replaced. On the same kind of CPU, the same seed gives the same model. Raise ConfigError if the folder holds files
    that are not a tiny Qwen2.5-VL.
    """
    wanted = {"version": VERSION, "untaught": tiny_qwen.VERSION, "seed": seed, **vars(course)}
    report = on_progress or (lambda what, done, total: None)

    def write(partial: Path) -> None:
        vases = vases_to_learn_from(seed, course.vases)
        pixels = draw_pictures(shots_of(vases, seed), SIDE + MARGIN, report)
        seen = [look(vase) for vase in vases for _ in range(VIEWS)]
        with reproducible(seed):
            model = tiny_qwen.new_model(seed, SIZES)
            _learn_to_look(model.model.visual, pixels, seen, course.looking, report)
            _learn_to_tell(model, pixels, seen, course.telling, report)
        tiny_qwen.write_model(partial, model)
        files.write_json(partial / TAUGHT_ON, [vase.id for vase in vases], indent=None)

    return make_once(folder, tiny_qwen.MARKER, wanted, write)


def taught_on(folder: Path) -> set[str]:
    """Return the ids of the vases on which the model in `folder` was trained."""
    return set(json.loads((folder / TAUGHT_ON).read_text(encoding="utf-8")))


def look_at(tower: nn.Module, pixels: Tensor) -> Tensor:
    """Return the vision tower's tokens (N, TOKENS, hidden) for pictures (N, 3, SIDE, SIDE) in 0..255."""
    count, cells = len(pixels), SIDE // tiny_qwen.PATCH
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (OPENAI_MEAN, OPENAI_STD))
    blocks = cells // tiny_qwen.MERGED
    # Patches are ordered as by Qwen's image processor: all patches of a token follow each other. Each has two frames.
    patches = (
        ((pixels.float() / 255 - mean) / std)
        .view(count, 3, blocks, tiny_qwen.MERGED, tiny_qwen.PATCH, blocks, tiny_qwen.MERGED, tiny_qwen.PATCH)
        .permute(0, 2, 5, 3, 6, 1, 4, 7)
        .unsqueeze(6)
        .expand(*[-1] * 6, tiny_qwen.FRAMES, -1, -1)
        .reshape(count * cells * cells, -1)
    )
    tokens = tower(patches, grid_thw=torch.tensor([[1, cells, cells]] * count)).pooler_output
    return tokens.view(count, TOKENS, -1)


def _batches(count: int, size: int, steps: int) -> Iterator[list[int]]:
    order: list[int] = []
    for _ in range(steps):
        if len(order) < size:
            order += torch.randperm(count).tolist()
        rows, order = order[:size], order[size:]
        yield rows


class _Optimizer:
    """AdamW with a one-cycle schedule and clipped gradients."""

    def __init__(self, parameters: Sequence[nn.Parameter], steps: int) -> None:
        self._parameters = parameters
        self._adam = torch.optim.AdamW(parameters, RATE, weight_decay=DECAY)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(self._adam, RATE, total_steps=steps, pct_start=WARMUP)

    def step(self, loss: Tensor) -> None:
        self._adam.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._adam.step()
        self._schedule.step()


def _learn_to_look(tower: nn.Module, pixels: Tensor, seen: Sequence[Seen], steps: int, report: OnProgress) -> None:
    for weight in tower.parameters():
        if weight.ndim == 2:
            nn.init.normal_(weight, std=0.7 * weight.shape[1] ** -0.5)
    heads = nn.ModuleList([nn.Linear(tiny_qwen.HIDDEN, len(kinds)) for kinds in (OUTLINES, GROUNDS, CLAYS)])
    kinds = torch.tensor([each.kinds for each in seen])
    optimizer = _Optimizer([*tower.parameters(), *heads.parameters()], steps)
    for step, rows in enumerate(_batches(len(pixels), LOOKED_AT, steps), 1):
        mean = look_at(tower, augmented(pixels[rows], SIDE)).mean(1)
        losses = [
            nn.functional.cross_entropy(head(mean), kinds[rows, number], label_smoothing=0.02)
            for number, head in enumerate(heads)
        ]
        optimizer.step(torch.stack(losses).sum())
        report("learning to see", step, steps)


def _learn_to_tell(model: Any, pixels: Tensor, seen: Sequence[Seen], steps: int, report: OnProgress) -> None:
    text, embedding = model.model.language_model, model.get_input_embeddings().weight
    margin = MARGIN // 2
    with torch.no_grad():
        middle = pixels[..., margin : margin + SIDE, margin : margin + SIDE]
        tokens = torch.cat([look_at(model.model.visual, some) for some in middle.split(100)])
        used = tiny_qwen.used_ids()
        words = nn.Parameter(embedding[used].clone())
    unused = torch.tensor(math.log(len(embedding) - len(used)))
    ask, talk, rng = questions(), Talk(used), random.Random(f"telling-{len(seen)}")
    optimizer = _Optimizer([*text.layers.parameters(), *text.norm.parameters(), words], steps)
    for step, rows in enumerate(_batches(len(pixels), TOLD, steps), 1):
        pairs = [(row, subject) for row in rows for subject in rng.sample(list(ask), 2)]
        turns = [talk.turn(rng.choice(ask[subject]), seen[row].say(subject)) for row, subject in pairs]
        ids = nn.utils.rnn.pad_sequence([torch.tensor(turn.ids) for turn in turns], batch_first=True)
        before = nn.functional.embedding(ids, words)
        begin, end = talk.picture
        inputs = torch.cat([before[:, :begin], tokens[[row for row, _ in pairs]], before[:, end:]], 1)
        positions = talk.positions(ids.shape[1])[:, None].expand(-1, len(turns), -1)
        # The padding is on the right. A causal model ignores it when it computes the tokens before the padding.
        hidden = text(inputs_embeds=inputs, position_ids=positions, use_cache=False).last_hidden_state
        asked = torch.cat([hidden[number, turn.answer - 1 : len(turn.ids) - 1] for number, turn in enumerate(turns)])
        wanted = torch.tensor([token for turn in turns for token in turn.ids[turn.answer :]])
        logits = torch.cat([asked @ words.T, unused.expand(len(asked), 1)], 1)
        optimizer.step(nn.functional.cross_entropy(logits, wanted))
        report("learning to tell", step, steps)
    with torch.no_grad():
        embedding[used] = words


@dataclass(frozen=True)
class Turn:
    """A question and its answer. `ids` are indices in the list of used tokens. `answer` is where the answer begins."""

    ids: list[int]
    answer: int


class Talk:
    """Formats questions and answers as token indices, in the same way as ms-swift and the processor.

    `used` is the list of used token ids. In every turn, the picture's tokens have the same place. `picture` holds the
    index of the first of these tokens, and the index after the last.
    """

    def __init__(self, used: list[int]) -> None:
        self._tokenizer = tiny_qwen.make_tokenizer()
        self._number = {token: number for number, token in enumerate(used)}
        self._before = self._ids(
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
        )
        self.picture = (len(self._before), len(self._before) + TOKENS)

    def _ids(self, text: str) -> list[int]:
        return [self._number[token] for token in self._tokenizer(text).input_ids]

    def turn(self, question: str, answer: str) -> Turn:
        """Return the tokens of a conversation: system prompt, picture, question, and answer."""
        pad = self._ids("<|image_pad|>") * TOKENS
        asked = self._before + pad + self._ids(f"<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n")
        return Turn(asked + self._ids(f"{answer}<|im_end|>"), len(asked))

    def positions(self, length: int) -> Tensor:
        """Return Qwen's position ids (3, length) for the tokens of a turn. The 3 axes are time, row and column."""
        begin, end = self.picture
        side = math.isqrt(TOKENS)
        cell = torch.arange(TOKENS)
        inside = begin + torch.stack([torch.zeros_like(cell), cell // side, cell % side])
        after = torch.arange(length - end) + begin + side
        return torch.cat([torch.arange(begin).expand(3, -1), inside, after.expand(3, -1)], 1)
