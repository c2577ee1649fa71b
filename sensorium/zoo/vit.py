"""ViT: a picture as a row of patches, and its class from a token that stands before them.

    pixels -> vision transformer -> class token -> one score for each class

Source: 2010.11929; weights google/vit-base-patch16-224, Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.settings import Keys
from sensorium.types import Batch
from sensorium.zoo.published import TOWER, activation, filled, renamed, stack_names
from sensorium.zoo.registry import Entry, register

__all__ = ["vit", "vit_b16"]

DEFAULTS = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "gelu",
            "layer_norm_eps": 1e-12, "image_size": 224, "patch_size": 16, "num_channels": 3, "id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
KEYS = TOWER | Keys(built=("id2label",), only={"qkv_bias": True}, harmless={
    "encoder_stride": "of a decoder of hidden patches", "pooler_output_size": "of a layer that classes do not read",
    "pooler_act": "of a layer that classes do not read"})
LAYER = {"attention_norm": "layernorm_before", "attention.query": "attention.attention.query", "attention.key": "attention.attention.key",
         "attention.value": "attention.attention.value", "attention.out": "attention.output.dense", "mlp_norm": "layernorm_after",
         "mlp.up": "intermediate.dense", "mlp.down": "output.dense"}


def vit(image: sn.VisionEncoder, classes: int) -> sn.Model:
    """A picture tower and its classes."""
    return sn.Model(encoders={"image": image}, heads={"class": sn.Classes(image.width, classes)}, objectives=(sn.Classify("image"),))


def _tower(size: int, patch: int, width: int, depth: int, heads: int, hidden: int | None = None, act: str = "gelu", eps: float = 1e-12,
           channels: int = 3) -> sn.VisionEncoder:
    return sn.VisionEncoder(size=size, patch=patch, width=width, depth=depth, heads=heads, hidden=hidden, act=act, eps=eps, channels=channels,
                            only_first=True, patch_bias=True, pre_norm=False)


def vit_b16() -> sn.Model:
    """ViT-B/16 at 224 pixels for the 1,000 classes of ImageNet, 87M parameters."""
    return vit(_tower(224, 16, 768, 12, 12), 1000)


def _toy() -> sn.Model:
    return vit(_tower(16, 8, 24, 2, 2), 7)


def pictures(samples: Sequence[int], alone: bool = False) -> Batch:
    """A toy batch of pictures and their classes; sample ``i`` is always the same."""
    images = [torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(number)) for number in samples]
    return Batch(pairs={"image": torch.stack(images)}, class_L=torch.tensor([number % 7 for number in samples]), samples=len(images))


def _spec(config: dict[str, Any]) -> sn.Model:
    c = filled(config, DEFAULTS, {"qkv_bias": True})
    tower = _tower(c["image_size"], c["patch_size"], c["hidden_size"], c["num_hidden_layers"], c["num_attention_heads"], c["intermediate_size"],
                   activation(c["hidden_act"]), c["layer_norm_eps"], c["num_channels"])
    return vit(tower, len(c["id2label"]))


def _rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    both = {"encoders.image.patch": "vit.embeddings.patch_embeddings.projection", "encoders.image.stack.norm": "vit.layernorm",
            "heads.class.out": "classifier"}
    names = {f"{mine}.{suffix}": f"{other}.{suffix}" for mine, other in both.items() for suffix in ("weight", "bias")}
    rules = renamed(names | stack_names("encoders.image.stack", "vit.encoder.layer", spec.encoders["image"].depth, LAYER))
    rules["encoders.image.first"] = Rule(("vit.embeddings.cls_token",), torch.flatten)
    rules["encoders.image.position"] = Rule(("vit.embeddings.position_embeddings",), lambda x: x[0])
    return rules


PUBLISHED["vit"] = Published(_spec, _rules, keys={"config.json": KEYS})
register(Entry(name="vit", full=vit_b16, toy=_toy, batch=pictures, parameters=86_567_656,
               source="ViT-B/16, 2010.11929; google/vit-base-patch16-224, Apache-2.0"))
