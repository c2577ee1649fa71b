"""DeepSeek-VL2: a SigLIP tower looks at the whole picture and at its tiles, each read as one grid, before a decoder of many small experts.

    whole, tiles -> vision transformer -> 2 x 2 patches joined, MLP -> rows, each with its end, and a vector between the two views -\\
                                                                                                      splice -> DeepSeek decoder -> next token
    ids -> vocabulary --------------------------------------------------------------------------------/

The published program cuts no tiles when a conversation holds more than two pictures; ViewsCodec with one grid of one tile does the same.

Source: 2412.10302; weights deepseek-ai/deepseek-vl2-tiny, -small and deepseek-vl2, DeepSeek model licence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.codecs.tiles import grid_places, lined
from sensorium.settings import CONFIG, PICTURES, Keys
from sensorium.types import Batch
from sensorium.zoo.deepseek import V2, deepseek, deepseek_spec, deepseek_stack, deepseek_v2_lite
from sensorium.zoo.deepseek_layout import deepseek_equals, deepseek_rules, unneeded
from sensorium.zoo.published import filled, processor_keys, renamed, stack_names
from sensorium.zoo.registry import Entry, register
from sensorium.zoo.smolvlm import siglip_tower

__all__ = ["deepseek_vl2", "deepseek_vl2_base", "deepseek_vl2_small", "deepseek_vl2_tiny"]

LAYER = {"attention_norm": "norm1", "attention.out": "attn.proj", "mlp_norm": "norm2", "mlp.up": "mlp.fc1", "mlp.down": "mlp.fc2"}
VISION = {"image_size": 384, "patch_size": 14, "width": 1152, "layers": 27, "heads": 16, "mlp_ratio": 3.7362}
PROJECTOR = {"input_dim": 1152, "n_embed": 2048, "downsample_ratio": 2, "mlp_ratio": 1}
WORDS = {"vocab_size": 102_400, "hidden_size": 4096, "intermediate_size": 11_008, "moe_intermediate_size": 1407, "num_hidden_layers": 30,
         "num_attention_heads": 32, "num_experts_per_tok": None, "n_routed_experts": None, "max_position_embeddings": 2048}
WAY = {"projector_type": "downsample_mlp_gelu", "depth": 2, "token_pooling": False}
_NOTES = dict.fromkeys(("cls", "params", "model_name", "model_type", "class_token", "global_pool", "ignore_head", "num_classes", "weight_init",
                        "deterministic", "num_recomputing_layers"), "a note of the published program")
KEYS = CONFIG | Keys(
    built=("candidate_resolutions",), only={"tile_tag": "2D", "global_view_pos": "head"}, parts={
        "vision_config": CONFIG | Keys(built=tuple(VISION), harmless=_NOTES),
        "projector_config": CONFIG | Keys(built=tuple(PROJECTOR), only=WAY, harmless=_NOTES),
        "language_config": V2 | Keys(only={"scoring_func": ("softmax", "sigmoid"), "norm_topk_prob": (True, False)}, harmless={
            "lm_head": "there is one"})})
SEEN = PICTURES | Keys(
    built=("candidate_resolutions",), only={"image_token": "<image>", "normalize": (True, None)},
    harmless={**dict.fromkeys(("pad_token", "add_special_token", "sft_format", "mask_prompt", "ignore_id", "patch_size", "downsample_ratio"),
                              "config.json, the tokenizer or the chat template says it")})
GRIDS = tuple((384 * rows, 384 * columns) for rows in range(1, 10) for columns in range(1, 10) if rows * columns <= 9)


def deepseek_vl2(image: sn.VisionEncoder, text: sn.Model, size: int = 2, hidden: int | None = None) -> sn.Model:
    """A picture tower before a DeepSeek; ``size`` x ``size`` patches become one position, ``hidden`` is the width inside the projector."""
    width = text.decoder.width
    return replace(
        text, encoders={**text.encoders, "image": image},
        align={"image": sn.Merge(image.width, width, size=size, hidden=hidden or width, norm=False, fill=True)},
        fuse={"splice": sn.Splice(("image",), own=2, width=width)})


def _tower() -> sn.VisionEncoder:
    return siglip_tower(384, 14, 1152, 27, 16, 4304)


def deepseek_vl2_tiny() -> sn.Model:
    """DeepSeek-VL2-Tiny, 3B parameters, of which a token uses 1.0B; plain attention."""
    experts = sn.Experts(1280, 896, count=64, top=6, shared=2)
    return deepseek_vl2(_tower(), deepseek(deepseek_stack(1280, 12, 10, 6848, None, experts, 1), 129_280))


def deepseek_vl2_small() -> sn.Model:
    """DeepSeek-VL2-Small, 16B parameters, of which a token uses 2.8B."""
    text = deepseek_v2_lite()
    stack = replace(text.decoder.read, rope_scaling=None, score_scale=192**-0.5)
    return deepseek_vl2(_tower(), replace(text, decoder=sn.Decoder(stack)))


def deepseek_vl2_base() -> sn.Model:
    """DeepSeek-VL2, 27B parameters, of which a token uses 4.5B."""
    experts = sn.Experts(2560, 1536, count=72, top=6, shared=2, score="sigmoid", group_by="top2", normalise=True, scale=2.0, biased=True)
    latent = sn.Latent(rank=512, plain=128, turned=64, value=128)
    return deepseek_vl2(_tower(), deepseek(deepseek_stack(2560, 30, 32, 12_288, latent, experts, 1), 129_280))


def _toy() -> sn.Model:
    latent = sn.Latent(rank=12, plain=8, turned=4, value=6)
    text = deepseek(deepseek_stack(32, 2, 4, 48, latent, sn.Experts(32, 12, count=4, top=2, shared=1), 1), 60)
    return deepseek_vl2(siglip_tower(12, 4, 24, 2, 2, 40), text)


def _views(samples: Sequence[int], alone: bool = False) -> Batch:
    """A toy batch of a picture of two tiles, a question and an answer; sample ``i`` is always the same."""
    packer = sn.Packer(places={"image": 4}, row=64, end=3)
    pick = torch.cat([lined(torch.arange(4).reshape(2, 2)), torch.tensor([-2]), lined(grid_places(1, 2, 2))])
    segments = []
    for number in samples:
        generator = torch.Generator().manual_seed(number)
        parts = [sn.Arrays("text", [4]), sn.Arrays("image", torch.randn(3, 3, 12, 12, generator=generator), pick=pick)]
        for length, target in ((3 + number % 3, False), (4, True)):
            parts.append(sn.Arrays("text", torch.randint(8, 60, (length,), generator=generator).tolist(), target=target))
        segments.append(packer.segment(parts))
    return packer.pack(segments, alone=alone)


def _spec(config: dict[str, Any]) -> sn.Model:
    filled(config, {}, {"tile_tag": "2D", "global_view_pos": "head"})
    vision = filled(config.get("vision_config") or {}, VISION)
    way = filled(config.get("projector_config") or {}, PROJECTOR, WAY)
    words = filled({**config.get("language_config", {}), "tensor_names": config["tensor_names"]}, WORDS)
    text = deepseek_spec(words, words.get("topk_method") == "noaux_tc")
    tower = siglip_tower(vision["image_size"], vision["patch_size"], vision["width"], vision["layers"], vision["heads"],
                         int(vision["width"] * vision["mlp_ratio"]))
    return deepseek_vl2(tower, text, way["downsample_ratio"], way["n_embed"] * way["mlp_ratio"])


def _rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    image, way, depth = "encoders.image", spec.align["image"], spec.encoders["image"].depth
    both = {f"{image}.patch": "vision.patch_embed.proj", f"{image}.stack.norm": "vision.norm", "align.image.map.up": "projector.layers.0",
            "align.image.map.down": "projector.layers.2"}
    names = {f"{mine}.{suffix}": f"{other}.{suffix}" for mine, other in both.items() for suffix in ("weight", "bias")}
    rules = renamed(names | stack_names(f"{image}.stack", "vision.blocks", depth, LAYER)) | deepseek_rules(spec, config.get("language_config", {}))
    rules[f"{image}.position"] = Rule(("vision.pos_embed",), lambda x: x[0])
    for i in range(depth):
        for third, part in enumerate(("query", "key", "value")):  # the file keeps the three in one matrix
            for suffix in ("weight", "bias"):
                rules[f"{image}.stack.blocks.{i}.attention.{part}.{suffix}"] = Rule(
                    (f"vision.blocks.{i}.attn.qkv.{suffix}",), lambda w, third=third: w.chunk(3)[third])
    rules["align.image.map.up.weight"] = Rule(  # the file joins the neighbours channel by channel
        ("projector.layers.0.weight",), lambda w: w.unflatten(1, (way.inside, way.size**2)).transpose(1, 2).flatten(1))
    rules["fuse.splice.own"] = Rule(("image_newline", "view_seperator"), lambda *vectors: torch.stack(vectors))  # the file spells it so
    return rules


def _ignored(name: str) -> str | None:
    return "behind the patches that are read" if name.startswith("vision.attn_pool.") else unneeded(name)


def _image(config: dict[str, Any], settings: dict[str, Any]) -> sn.ViewsCodec:
    vision, size = filled(config.get("vision_config") or {}, VISION), (config.get("projector_config") or {}).get("downsample_ratio", 2)
    c = filled(settings, {"image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    tile = sn.VisionCodec(size=vision["image_size"], mean=tuple(c["image_mean"]), std=tuple(c["image_std"]),
                          background=tuple(int(255 * mean) for mean in c["image_mean"]))
    grids = c.get("candidate_resolutions") or config.get("candidate_resolutions") or GRIDS
    return sn.ViewsCodec(tile, tuple((high, wide) for wide, high in grids), -(-(vision["image_size"] // vision["patch_size"]) // size))


PUBLISHED["deepseek_vl_v2"] = Published(_spec, _rules, _ignored, lambda name: name.removeprefix("language."), image=_image, equals=deepseek_equals,
                                       keys={"config.json": KEYS, **processor_keys(SEEN, more=SEEN)})
for _name, _full, _count in (("tiny", deepseek_vl2_tiny, 3_370_000_000), ("small", deepseek_vl2_small, 16_100_000_000),
                             ("base", deepseek_vl2_base, 27_500_000_000)):
    register(Entry(name="deepseek_vl2" if _name == "base" else f"deepseek_vl2_{_name}", full=_full, toy=_toy, batch=_views, parameters=_count,
                   unread=15_238_352, rounded=0.004, source="DeepSeek-VL2, 2412.10302, table 1; deepseek-ai/deepseek-vl2, DeepSeek model licence"))
