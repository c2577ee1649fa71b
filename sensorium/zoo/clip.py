"""CLIP: a picture tower and a text tower meet in one space.

    pixels -> vision transformer -> class token -> linear -\\
                                                            unit sphere -> softmax contrastive
    ids -> causal text transformer -> end token -> linear -/

Source: 2103.00020; weights openai/clip-vit-base-patch32, MIT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.settings import CONFIG, Keys
from sensorium.types import Batch
from sensorium.zoo.published import CLIP_LAYER, NO_HEAD, TOWER, activation, filled, renamed, stack_names
from sensorium.zoo.registry import Entry, register

__all__ = ["clip", "clip_b32", "vision_defaults", "vision_names"]

TEXT_DEFAULTS = {"vocab_size": 49_408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8,
                 "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "eos_token_id": 49_407}
vision_defaults = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "num_channels": 3,
                   "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_OUTER = {"projection_dim": "the one outside of the towers counts", **NO_HEAD}
TEXT = CONFIG | Keys(built=tuple(TEXT_DEFAULTS), harmless=_OUTER)
VISION = TOWER | Keys(harmless=_OUTER)
KEYS = CONFIG | Keys(built=("projection_dim",), harmless={"logit_scale_init_value": "for training", **NO_HEAD}, parts={
    "text_config": TEXT, "text_config_dict": TEXT, "vision_config": VISION, "vision_config_dict": VISION})


def clip(image: sn.VisionEncoder, text: sn.TextEncoder, joint: int) -> sn.Model:
    """Two towers and the width of the space they share."""
    return sn.Model(
        encoders={"image": replace(image, only_first=True), "text": text},
        align={"image": sn.Project(image.width, joint, pool="first"), "text": sn.Project(text.width, joint, pool="last")},
        heads={"embed": sn.Unit()},
        objectives=(sn.Contrastive("image", "text", temperature=0.07),))


def clip_b32() -> sn.Model:
    """ViT-B/32, 151M parameters."""
    return clip(sn.VisionEncoder(size=224, patch=32, width=768, depth=12, heads=12),
                sn.TextEncoder(vocab=49_408, context=77, width=512, depth=12, heads=8, end=49_407), 512)


def _toy() -> sn.Model:
    return clip(sn.VisionEncoder(size=16, patch=8, width=24, depth=2, heads=2),
                sn.TextEncoder(vocab=50, context=12, width=16, depth=2, heads=2, end=49), 20)


def pairs(samples: Sequence[int], size: int = 16, vocab: int = 50, end: int = 49, context: int = 12) -> Batch:
    """A toy batch of pictures and texts; sample ``i`` is always the same pair."""
    images, texts = [], []
    for number in samples:
        generator = torch.Generator().manual_seed(number)
        images.append(torch.randn(3, size, size, generator=generator))
        length = int(torch.randint(3, context, (), generator=generator))
        ids = torch.full((context,), 1)
        ids[:length] = torch.randint(2, vocab - 1, (length,), generator=generator)
        ids[length] = end
        texts.append(ids)
    return Batch(pairs={"image": torch.stack(images), "text": torch.stack(texts)}, samples=len(images))


def vision_names(ours: str, theirs: str, depth: int, final: bool = True) -> dict[str, str]:
    """Names of a published CLIP picture tower of ``depth`` layers; ``final``: with the norm after the last."""
    names = {f"{ours}.patch.weight": f"{theirs}.embeddings.patch_embedding.weight", f"{ours}.first": f"{theirs}.embeddings.class_embedding",
             f"{ours}.position": f"{theirs}.embeddings.position_embedding.weight"}
    norms = [("pre_norm", "pre_layrnorm"), *([("stack.norm", "post_layernorm")] if final else [])]  # the file spells it so
    names |= {f"{ours}.{mine}.{suffix}": f"{theirs}.{other}.{suffix}" for mine, other in norms for suffix in ("weight", "bias")}
    return names | stack_names(f"{ours}.stack", f"{theirs}.encoder.layers", depth, CLIP_LAYER)


def _newest(config: dict[str, Any], part: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """A tower's settings; where an old file has them twice, the older name counts, with the library's defaults."""
    older = config.get(f"{part}_dict")
    return {**(config.get(part) or {}), **({} if older is None else {**defaults, **older})}


def _spec(config: dict[str, Any]) -> sn.Model:
    vision, text = (filled(_newest(config, f"{part}_config", defaults), defaults) for part, defaults in (
        ("vision", vision_defaults), ("text", TEXT_DEFAULTS)))
    end = text["eos_token_id"] if text["eos_token_id"] != 2 else text["vocab_size"] - 1  # early files say 2 and mean the highest id
    return clip(
        sn.VisionEncoder(size=vision["image_size"], patch=vision["patch_size"], width=vision["hidden_size"], act=activation(vision["hidden_act"]),
                         depth=vision["num_hidden_layers"], heads=vision["num_attention_heads"], hidden=vision["intermediate_size"],
                         eps=vision["layer_norm_eps"], channels=vision["num_channels"]),
        sn.TextEncoder(vocab=text["vocab_size"], context=text["max_position_embeddings"], width=text["hidden_size"], end=end,
                       depth=text["num_hidden_layers"], heads=text["num_attention_heads"], hidden=text["intermediate_size"],
                       act=activation(text["hidden_act"]), eps=text["layer_norm_eps"]),
        config.get("projection_dim", 512))


def _rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    text = "encoders.text"
    names = {f"{text}.token.weight": "text_model.embeddings.token_embedding.weight",
             f"{text}.position": "text_model.embeddings.position_embedding.weight",
             f"{text}.stack.norm.weight": "text_model.final_layer_norm.weight", f"{text}.stack.norm.bias": "text_model.final_layer_norm.bias",
             "align.image.map.weight": "visual_projection.weight", "align.text.map.weight": "text_projection.weight",
             "objectives.0.log_scale": "logit_scale"}
    names |= stack_names(f"{text}.stack", "text_model.encoder.layers", spec.encoders["text"].depth, CLIP_LAYER)
    return renamed(names | vision_names("encoders.image", "vision_model", spec.encoders["image"].depth))


PUBLISHED["clip"] = Published(_spec, _rules, lambda name: "counts 0, 1, 2, ..." if name.endswith("position_ids") else None,
                              keys={"config.json": KEYS})
register(Entry(name="clip", full=clip_b32, toy=_toy, batch=lambda samples, alone=False: pairs(samples), parameters=151_277_313,
               source="CLIP ViT-B/32, 2103.00020; openai/clip-vit-base-patch32, MIT"))
