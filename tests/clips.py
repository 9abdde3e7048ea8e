"""Tiny random CLIP models for tests: the same weights as a Hugging Face folder and as an open_clip folder. No network
is needed.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

SIZE, PATCH, WIDTH, HEADS, LAYERS, TEXT_WIDTH, TEXT_HEADS, TEXT_LAYERS, DIM = 32, 8, 64, 2, 2, 32, 2, 2, 16


def hugging_face(folder: Path, seed: int = 0, hidden_act: str = "quick_gelu") -> Path:
    """Write a random CLIPModel with OpenAI's tokenizer (from open_clip's package) in Hugging Face's layout."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    torch.manual_seed(seed)
    common = {"hidden_act": hidden_act, "projection_dim": DIM}
    config = CLIPConfig(
        text_config={
            **common,
            "hidden_size": TEXT_WIDTH,
            "intermediate_size": 4 * TEXT_WIDTH,
            "num_attention_heads": TEXT_HEADS,
            "num_hidden_layers": TEXT_LAYERS,
            "vocab_size": 49408,
            "bos_token_id": 49406,
            "eos_token_id": 49407,
        },
        vision_config={
            **common,
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_attention_heads": HEADS,
            "num_hidden_layers": LAYERS,
            "image_size": SIZE,
            "patch_size": PATCH,
        },
        projection_dim=DIM,
    )
    model = CLIPModel(config)
    with torch.no_grad():  # larger than the initial weights, so that scores differ visibly between images
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    simple = SimpleTokenizer()
    merges = [pair for pair, _ in sorted(simple.bpe_ranks.items(), key=lambda item: item[1])]
    vocab = {
        {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}.get(word, word): number
        for word, number in simple.encoder.items()
    }
    CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


def open_clip(folder: Path, source: Path) -> Path:
    """Write the Hugging Face model in `source` in open_clip's layout."""
    from safetensors.torch import load_file

    weights = load_file(source / "model.safetensors")
    activation = json.loads((source / "config.json").read_text())["vision_config"]["hidden_act"]
    state: dict[str, Tensor] = {
        "logit_scale": weights["logit_scale"],
        "visual.class_embedding": weights["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": weights["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": weights["vision_model.embeddings.patch_embedding.weight"],
        "visual.proj": weights["visual_projection.weight"].T,
        "positional_embedding": weights["text_model.embeddings.position_embedding.weight"],
        "token_embedding.weight": weights["text_model.embeddings.token_embedding.weight"],
        "text_projection": weights["text_projection.weight"].T,
    }
    for kind in ("weight", "bias"):
        state[f"visual.ln_pre.{kind}"] = weights[f"vision_model.pre_layrnorm.{kind}"]
        state[f"visual.ln_post.{kind}"] = weights[f"vision_model.post_layernorm.{kind}"]
        state[f"ln_final.{kind}"] = weights[f"text_model.final_layer_norm.{kind}"]
    for ours, theirs, layers in (
        ("visual.transformer", "vision_model", LAYERS),
        ("transformer", "text_model", TEXT_LAYERS),
    ):
        for layer in range(layers):
            to, of = f"{ours}.resblocks.{layer}", f"{theirs}.encoder.layers.{layer}"
            for kind in ("weight", "bias"):
                state[f"{to}.attn.in_proj_{kind}"] = torch.cat(
                    [weights[f"{of}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
                )
                state[f"{to}.attn.out_proj.{kind}"] = weights[f"{of}.self_attn.out_proj.{kind}"]
                state[f"{to}.ln_1.{kind}"] = weights[f"{of}.layer_norm1.{kind}"]
                state[f"{to}.ln_2.{kind}"] = weights[f"{of}.layer_norm2.{kind}"]
                state[f"{to}.mlp.c_fc.{kind}"] = weights[f"{of}.mlp.fc1.{kind}"]
                state[f"{to}.mlp.c_proj.{kind}"] = weights[f"{of}.mlp.fc2.{kind}"]
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "open_clip_model.safetensors")
    config = {
        "model_cfg": {
            "embed_dim": DIM,
            "quick_gelu": activation == "quick_gelu",
            "vision_cfg": {
                "image_size": SIZE,
                "layers": LAYERS,
                "width": WIDTH,
                "patch_size": PATCH,
                "head_width": WIDTH // HEADS,
            },
            "text_cfg": {
                "context_length": 77,
                "vocab_size": 49408,
                "width": TEXT_WIDTH,
                "heads": TEXT_HEADS,
                "layers": TEXT_LAYERS,
            },
        },
        "preprocess_cfg": {
            "mean": [0.48145466, 0.4578275, 0.40821073],
            "std": [0.26862954, 0.26130258, 0.27577711],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder
