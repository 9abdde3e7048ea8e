"""Make a tiny Qwen2.5-VL that a CPU can train in seconds.

The model has the architecture of Qwen2.5-VL, random weights, and its own tokenizer. ms-swift's template contains the
ids of Qwen's special tokens. The special tokens therefore have the same ids as in Qwen2.5-VL, and the vocabulary has
the same size. The ordinary tokens are byte pairs that the tokenizer learns from sentences about invented vases. Nothing
is downloaded.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vasevqa.sample.captions import caption
from vasevqa.sample.catalogue import invent
from vasevqa.sample.making import make_once

VERSION = 2  # increased when the code makes a different model from the same seed
MARKER = "tiny_qwen.json"
VOCABULARY = 151936
MERGED_TOKENS = 1536  # number of ordinary tokens: the 256 bytes and the most common byte pairs
FIRST_SPECIAL = 151643
SPECIAL = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|>"
    " <|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>"
    " <tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> <|file_sep|>"
)
QUESTIONS = (
    "What is the fabric of this vase? Which technique was used? What shape is it? Where was it found? When was it made?"
    " Who painted it? Describe the decoration. Answer in one sentence. <answer> </answer> {'fabric': 'Attic', 'date':"
    " -450} You are a helpful assistant."
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a"
    " helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string"
    " %}{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image'"
    " %}<|vision_start|><|image_pad|><|vision_end|>{% elif part['type'] == 'video'"
    " %}<|vision_start|><|video_pad|><|vision_end|>{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{%"
    " endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
EMBEDDING_STD = 0.35
HIDDEN, HEADS = 64, 4
PATCH, MERGED, FRAMES = 14, 2, 2  # pixels of a patch's side, patches of a token's side, frames of a patch


@dataclass(frozen=True)
class Sizes:
    """The sizes of a tiny model: the text model's layers, and the vision tower's depth, width and attention heads."""

    layers: int
    depth: int
    width: int
    heads: int


SMALLEST = Sizes(layers=2, depth=2, width=32, heads=2)


def make_tiny_qwen(folder: Path, seed: int = 0) -> bool:
    """Write a complete Hugging Face model folder (40 MB). Return False if the folder already holds this model.

    The same seed gives the same weights. A tiny Qwen2.5-VL with different settings in the folder is replaced. Raise
    ConfigError if the folder holds files that are not a tiny Qwen2.5-VL.
    """
    return make_once(
        folder, MARKER, {"version": VERSION, "seed": seed}, lambda partial: write_model(partial, new_model(seed))
    )


def write_model(folder: Path, model: Any) -> None:
    """Write the model and its processor as a Hugging Face folder."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    size = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
    shared = {"patch_size": PATCH, "merge_size": MERGED, "temporal_patch_size": FRAMES}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(size=size, **shared),
        make_tokenizer(),
        Qwen2VLVideoProcessor(size=size, **shared),
        chat_template=CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)
    model.save_pretrained(folder)


def new_model(seed: int, sizes: Sizes = SMALLEST) -> Any:
    """Return a model with random weights. The same seed gives the same weights."""
    from transformers import GenerationConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": 4 * HIDDEN,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        "tie_word_embeddings": True,
        "bos_token_id": special_id("<|endoftext|>"),
        "eos_token_id": special_id("<|im_end|>"),
    }
    vision = {
        "depth": sizes.depth,
        "hidden_size": sizes.width,
        "intermediate_size": 2 * sizes.width,
        "num_heads": sizes.heads,
        "out_hidden_size": HIDDEN,
        "patch_size": PATCH,
        "spatial_merge_size": MERGED,
        "temporal_patch_size": FRAMES,
        "window_size": 112,
        "fullatt_block_indexes": list(range(1, sizes.depth)),
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=special_id("<|image_pad|>"),
        video_token_id=special_id("<|video_pad|>"),
        vision_start_token_id=special_id("<|vision_start|>"),
        vision_end_token_id=special_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config).float()
        with torch.no_grad():
            # With the usual standard deviation of 0.02, such narrow layers would hardly change their input, and an
            # adapter would have no effect.
            for name, weight in model.named_parameters():
                if weight.ndim == 2 and name.endswith(".weight") and "embed" not in name and "lm_head" not in name:
                    weight.normal_(std=weight.shape[1] ** -0.5)
            embedding = model.get_input_embeddings().weight
            # With few dimensions and the usual standard deviation of 0.02, the logits of tokens would hardly differ, so
            # the embeddings are larger. Embeddings of ids that the tokenizer never produces are zero.
            embedding.zero_()
            embedding[:MERGED_TOKENS].normal_(std=EMBEDDING_STD)
            embedding[FIRST_SPECIAL : FIRST_SPECIAL + len(SPECIAL.split())].normal_(std=EMBEDDING_STD)
    model.generation_config = GenerationConfig(
        eos_token_id=[special_id("<|im_end|>"), special_id("<|endoftext|>")], pad_token_id=special_id("<|endoftext|>")
    )
    return model


def special_id(special: str) -> int:
    """Return the id of one of Qwen's special tokens."""
    return FIRST_SPECIAL + SPECIAL.split().index(special)


def used_ids() -> list[int]:
    """Return the ids that the tokenizer produces. All other ids have zero embeddings."""
    return [*range(MERGED_TOKENS), *(special_id(token) for token in SPECIAL.split())]


def make_tokenizer() -> Any:
    """Train the tokenizer, and return it. Training takes about a second, and the result is always the same."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import AddedToken, Qwen2Tokenizer

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=MERGED_TOKENS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    learner.train_from_iterator(_sentences(), trainer)
    learnt = json.loads(learner.to_str())["model"]
    special = SPECIAL.split()
    tokenizer = Qwen2Tokenizer(
        vocab={**learnt["vocab"], **{token: special_id(token) for token in special}},
        merges=[tuple(pair) for pair in learnt["merges"]],
        extra_special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
        eos_token="<|im_end|>",  # noqa: S106 - a token of text, not a secret
        model_max_length=4096,
    )
    wrong = [token for token in special if tokenizer.convert_tokens_to_ids(token) != special_id(token)]
    assert not wrong, f"this version of tokenizers gives other ids to {wrong}"
    return tokenizer


def _sentences() -> Iterator[str]:
    rng = random.Random("tiny-qwen")
    for _ in range(400):
        vase = invent(rng)
        yield " ".join(str(value) for key, value in vase.annotation.items() if key != "vase_id")
        yield caption(vase, None, rng)
    yield from [QUESTIONS] * 20
