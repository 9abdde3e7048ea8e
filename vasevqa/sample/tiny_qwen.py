"""A tiny Qwen2.5-VL for trainings that run on a CPU in seconds.

It has the real architecture, random weights and a tokenizer of our own. Qwen's special tokens have their real ids, and
the vocabulary has its real size, because ms-swift's template has these ids built in. The ordinary tokens are byte pairs
learnt from sentences about invented vases. Nothing is downloaded.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from vasevqa import files
from vasevqa.errors import ConfigError
from vasevqa.sample.captions import caption
from vasevqa.sample.catalogue import invent

VERSION = 2  # raised when the same seed makes another model
MARKER = "tiny_qwen.json"
VOCABULARY = 151936
MERGED_TOKENS = 1536  # ordinary tokens: the 256 bytes and their commonest pairs
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
HIDDEN, LAYERS, HEADS = 64, 2, 4
VISION: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "out_hidden_size": HIDDEN,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [1],
}


def make_tiny_qwen(folder: Path, seed: int = 0) -> bool:
    """Write a complete Hugging Face model folder (40 MB), and return False if it was there already.

    The same seed makes the same weights. Raise ConfigError if `folder` holds something else.
    """
    wanted = {"version": VERSION, "seed": seed}
    marker = folder / MARKER
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == wanted:
        return False
    if folder.exists() and not marker.is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} holds something else than a tiny Qwen made here; choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == wanted:
            return False
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        _write(partial, seed)
        files.write_json(partial / MARKER, wanted)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    return True


def _write(folder: Path, seed: int) -> None:
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    tokenizer = _tokenizer()
    size = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
    shared = {
        "patch_size": VISION["patch_size"],
        "merge_size": VISION["spatial_merge_size"],
        "temporal_patch_size": VISION["temporal_patch_size"],
    }
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(size=size, **shared),
        tokenizer,
        Qwen2VLVideoProcessor(size=size, **shared),
        chat_template=CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)
    _model(seed).save_pretrained(folder)


def _model(seed: int) -> Any:
    from transformers import GenerationConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": 4 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        "tie_word_embeddings": True,
        "bos_token_id": _id("<|endoftext|>"),
        "eos_token_id": _id("<|im_end|>"),
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=VISION,
        image_token_id=_id("<|image_pad|>"),
        video_token_id=_id("<|video_pad|>"),
        vision_start_token_id=_id("<|vision_start|>"),
        vision_end_token_id=_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config).float()
        with torch.no_grad():
            # With the usual 0.02 so narrow layers would hand their input on as it is, and an adapter would have nothing
            # to turn.
            for name, weight in model.named_parameters():
                if weight.ndim == 2 and name.endswith(".weight") and "embed" not in name and "lm_head" not in name:
                    weight.normal_(std=weight.shape[1] ** -0.5)
            embedding = model.get_input_embeddings().weight
            # Large enough that logits can tell tokens apart: with the usual 0.02 and so few dimensions they hardly
            # could. Ids that the tokenizer never makes get no weight, so that they stay out of the way.
            embedding.zero_()
            embedding[:MERGED_TOKENS].normal_(std=EMBEDDING_STD)
            embedding[FIRST_SPECIAL : FIRST_SPECIAL + len(SPECIAL.split())].normal_(std=EMBEDDING_STD)
    model.generation_config = GenerationConfig(
        eos_token_id=[_id("<|im_end|>"), _id("<|endoftext|>")], pad_token_id=_id("<|endoftext|>")
    )
    return model


def _id(special: str) -> int:
    return FIRST_SPECIAL + SPECIAL.split().index(special)


def _tokenizer() -> Any:
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
        vocab={**learnt["vocab"], **{token: _id(token) for token in special}},
        merges=[tuple(pair) for pair in learnt["merges"]],
        extra_special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
        eos_token="<|im_end|>",  # noqa: S106 - a token of text, no secret
        model_max_length=4096,
    )
    wrong = [token for token in special if tokenizer.convert_tokens_to_ids(token) != _id(token)]
    assert not wrong, f"this version of tokenizers gives {wrong} other ids"
    return tokenizer


def _sentences() -> Iterator[str]:
    rng = random.Random("tiny-qwen")
    for _ in range(400):
        vase = invent(rng)
        yield " ".join(str(value) for key, value in vase.annotation.items() if key != "vase_id")
        yield caption(vase, None, rng)
    yield from [QUESTIONS] * 20
