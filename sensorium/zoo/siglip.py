"""SigLIP: CLIP's two towers, where every pair is a yes-or-no question of its own.

    pixels -> vision transformer -> one query attends to all -\\
                                                               unit sphere -> sigmoid contrastive
    ids -> text transformer -> last place -> linear ----------/

Source: 2303.15343; weights google/siglip-base-patch16-224, Apache-2.0.
"""

from __future__ import annotations

from typing import Any

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.settings import CONFIG, Keys
from sensorium.zoo.clip import pairs
from sensorium.zoo.published import CLIP_LAYER, GELU_TANH, NO_HEAD, TOWER, filled, renamed, stack_names
from sensorium.zoo.registry import Entry, register

__all__ = ["siglip", "siglip_b16"]

TEXT_DEFAULTS = {"vocab_size": 32_000, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
                 "max_position_embeddings": 64, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
VISION_DEFAULTS = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "num_channels": 3,
                   "image_size": 224, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
FIXED = {"hidden_act": GELU_TANH}
TEXT = CONFIG | Keys(built=tuple(key for key in TEXT_DEFAULTS if key not in FIXED), only=FIXED, harmless=NO_HEAD | {
    "projection_size": "the picture tower's width, which both meet in"})
VISION = TOWER | Keys(only={**FIXED, "vision_use_head": True})
KEYS = CONFIG | Keys(parts={"text_config": TEXT, "vision_config": VISION}, harmless=NO_HEAD)


def siglip(image: sn.VisionEncoder, text: sn.TextEncoder, hidden: int | None = None) -> sn.Model:
    """Two towers; ``hidden`` is the MLP width of the picture's pooling."""
    pool = sn.AttentionPool(image.width, image.heads, hidden=hidden, eps=image.eps)
    return sn.Model(
        encoders={"image": image, "text": text},
        align={"image": pool, "text": sn.Project(text.width, image.width, pool="last", bias=True)},
        heads={"embed": sn.Unit()},
        objectives=(sn.Contrastive("image", "text", form="sigmoid", temperature=0.1),))


def _towers(size: int, patch: int, width: int, depth: int, heads: int, vocab: int, context: int, hidden: int | None = None) -> sn.Model:
    shared = dict(width=width, depth=depth, heads=heads, hidden=hidden, act="gelu_tanh", eps=1e-6)
    return siglip(sn.VisionEncoder(size=size, patch=patch, first=False, pre_norm=False, patch_bias=True, **shared),
                  sn.TextEncoder(vocab=vocab, context=context, causal=False, **shared), hidden)


def siglip_b16() -> sn.Model:
    """ViT-B/16 at 224 pixels, 203M parameters."""
    return _towers(224, 16, 768, 12, 12, 32_000, 64)


def _toy() -> sn.Model:
    return _towers(16, 8, 24, 2, 2, 50, 12)


def _spec(config: dict[str, Any]) -> sn.Model:
    vision = filled(config.get("vision_config") or {}, VISION_DEFAULTS, {**FIXED, "vision_use_head": True})
    text = filled(config.get("text_config") or {}, TEXT_DEFAULTS, FIXED)
    return siglip(
        sn.VisionEncoder(size=vision["image_size"], patch=vision["patch_size"], width=vision["hidden_size"], act="gelu_tanh",
                         depth=vision["num_hidden_layers"], heads=vision["num_attention_heads"], hidden=vision["intermediate_size"],
                         eps=vision["layer_norm_eps"], channels=vision["num_channels"], first=False, pre_norm=False, patch_bias=True),
        sn.TextEncoder(vocab=text["vocab_size"], context=text["max_position_embeddings"], width=text["hidden_size"], act="gelu_tanh",
                       depth=text["num_hidden_layers"], heads=text["num_attention_heads"], hidden=text["intermediate_size"],
                       eps=text["layer_norm_eps"], causal=False),
        vision["intermediate_size"])


def _rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    text, image, pool = "encoders.text", "encoders.image", "align.image"
    names = {f"{text}.token.weight": "text_model.embeddings.token_embedding.weight",
             f"{text}.position": "text_model.embeddings.position_embedding.weight",
             f"{image}.position": "vision_model.embeddings.position_embedding.weight"}
    both = {f"{text}.stack.norm": "text_model.final_layer_norm", "align.text.map": "text_model.head",
            f"{image}.patch": "vision_model.embeddings.patch_embedding", f"{image}.stack.norm": "vision_model.post_layernorm",
            f"{pool}.norm": "vision_model.head.layernorm", f"{pool}.mlp.up": "vision_model.head.mlp.fc1",
            f"{pool}.mlp.down": "vision_model.head.mlp.fc2", f"{pool}.attention.out": "vision_model.head.attention.out_proj"}
    names |= {f"{mine}.{suffix}": f"{other}.{suffix}" for mine, other in both.items() for suffix in ("weight", "bias")}
    names |= stack_names(f"{text}.stack", "text_model.encoder.layers", spec.encoders["text"].depth, CLIP_LAYER)
    names |= stack_names(f"{image}.stack", "vision_model.encoder.layers", spec.encoders["image"].depth, CLIP_LAYER)
    rules = renamed(names)
    for third, part in enumerate(("query", "key", "value")):  # the file keeps the three in one matrix
        rules[f"{pool}.attention.{part}.weight"] = Rule(("vision_model.head.attention.in_proj_weight",), lambda w, i=third: w.chunk(3)[i])
        rules[f"{pool}.attention.{part}.bias"] = Rule(("vision_model.head.attention.in_proj_bias",), lambda w, i=third: w.chunk(3)[i])
    rules[f"{pool}.query"] = Rule(("vision_model.head.probe",))
    rules["objectives.0.log_scale"] = Rule(("logit_scale",), lambda x: x.reshape(()))
    rules["objectives.0.bias"] = Rule(("logit_bias",), lambda x: x.reshape(()))
    return rules


PUBLISHED["siglip"] = Published(_spec, _rules, lambda name: "counts 0, 1, 2, ..." if name.endswith("position_ids") else None,
                                keys={"config.json": KEYS})
register(Entry(name="siglip", full=siglip_b16, toy=_toy, batch=lambda samples, alone=False: pairs(samples), parameters=203_155_970,
               source="SigLIP ViT-B/16-224, 2303.15343; google/siglip-base-patch16-224, Apache-2.0"))
