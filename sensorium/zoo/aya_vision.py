"""Aya Vision: pictures in tiles and as a whole, four patches joined into one, a gated way to the words of a Cohere2 decoder.

    tiles, then the whole -> SigLIP tower -> pixel shuffle 2 x 2, norm, gated MLP -\\
                                                                                   splice -> Cohere2 decoder -> next token
    ids -> vocabulary -------------------------------------------------------------/

Source: 2505.08751; weights CohereLabs/aya-vision-8b, CC-BY-NC-4.0 (not shipped here).
"""

from __future__ import annotations

from typing import Any

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.settings import CONFIG, PICTURES, Keys
from sensorium.types import ConfigError
from sensorium.zoo.cohere2 import KEYS as COHERE2
from sensorium.zoo.cohere2 import cohere2, cohere2_7b, cohere2_decoder, cohere2_rules, published_cohere2
from sensorium.zoo.llama import llama_equals, tied_head
from sensorium.zoo.llava import chats, layout, module
from sensorium.zoo.published import CLIP_LAYER, CLIP_PICTURES, GELU_TANH, TOWER, filled, picture_codec, processor_keys, renamed, stack_names
from sensorium.zoo.registry import Entry, register

__all__ = ["aya_vision", "aya_vision_8b", "siglip_tower"]

TOWER_DEFAULTS = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 26, "num_attention_heads": 14, "num_channels": 3,
                  "image_size": 384, "patch_size": 14, "layer_norm_eps": 1e-6}
DEFAULTS = {"downsample_factor": 2, "adapter_layer_norm_eps": 1e-6, "vision_feature_layer": -1}
FIXED = {"vision_feature_select_strategy": "full", "alignment_activation_fn": "swiglu", "tie_word_embeddings": True}
KEYS = CONFIG | Keys(
    built=(*DEFAULTS, "alignment_intermediate_size", "image_token_index", "image_token_id"), only=FIXED, parts={
        "text_config": COHERE2 | Keys(only={"model_type": "cohere2"}), "vision_config": TOWER | Keys(
            only={"hidden_act": GELU_TANH}, harmless={"vision_use_head": "behind the layer that is read"})},
    harmless={"max_splits_per_img": "the settings of pictures say it", "image_seq_length": "it follows from the tower"})
TILES = PICTURES | Keys(built=("max_patches", "min_patches"), only={"crop_to_patches": (True, None)})
SAID = {"start_of_img_token": "<|START_OF_IMG|>", "end_of_img_token": "<|END_OF_IMG|>", "tile_token": "TILE", "tile_global_token": "TILE_GLOBAL",
        "img_patch_token": "<|IMG_PATCH|>"}
TEXTS = Keys(only=SAID, harmless={"img_line_break_token": "it is never written", "max_splits_per_img": "the settings of pictures say it"})


def aya_vision(image: sn.VisionEncoder, text: sn.Model, hidden: int, size: int = 2, eps: float = 1e-6) -> sn.Model:
    """A picture tower before a language model; ``hidden`` is the width inside the gated MLP."""
    width = text.decoder.width
    return sn.Model(
        encoders={**text.encoders, "image": image},
        align={"image": sn.Merge(image.width, width, size=size, hidden=hidden, act="silu", gated=True, norm_joined=True, eps=eps)},
        fuse={"splice": sn.Splice(("image",))}, decoder=text.decoder, heads=text.heads, objectives=text.objectives)


def siglip_tower(size: int, patch: int, width: int, depth: int, heads: int, hidden: int, eps: float = 1e-6, channels: int = 3,
                 final_norm: bool = False) -> sn.VisionEncoder:
    """SigLIP's picture tower before a language model."""
    return sn.VisionEncoder(size=size, patch=patch, width=width, depth=depth, heads=heads, hidden=hidden, eps=eps, channels=channels,
                            act="gelu_tanh", first=False, pre_norm=False, patch_bias=True, final_norm=final_norm)


def aya_vision_8b() -> sn.Model:
    """Aya Vision on Command R7B, 8.6B parameters."""
    return aya_vision(siglip_tower(364, 14, 1152, 27, 16, 4304), cohere2_7b(), 14_336)


def _toy() -> sn.Model:
    text = cohere2(cohere2_decoder(32, 2, 4, 2, 48, (6, None), theta=100.0), 60, scale=0.5)
    return aya_vision(siglip_tower(16, 4, 24, 2, 2, 40), text, 20)


def _spec(config: dict[str, Any]) -> sn.Model:
    c = filled(config, DEFAULTS, FIXED)
    vision = filled(c.get("vision_config") or {}, TOWER_DEFAULTS, {"hidden_act": GELU_TANH})
    text, layer, depth = published_cohere2(c.get("text_config") or {}), c["vision_feature_layer"], vision["num_hidden_layers"]
    if not isinstance(layer, int):
        raise ConfigError(f"config.json sets vision_feature_layer to {layer!r}; only one layer is built")
    tower = siglip_tower(vision["image_size"], vision["patch_size"], vision["hidden_size"], depth + 1 + layer if layer < 0 else layer,
                   vision["num_attention_heads"], vision["intermediate_size"], vision["layer_norm_eps"], vision["num_channels"])
    hidden = c.get("alignment_intermediate_size", text.decoder.width)
    return aya_vision(tower, text, hidden // 2, c["downsample_factor"], c["adapter_layer_norm_eps"])


def _rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    image, tower, way = "encoders.image", "vision_tower", "multi_modal_projector"
    both = {f"{image}.patch": f"{tower}.embeddings.patch_embedding", "align.image.norm": f"{way}.layernorm",
            "align.image.map.down": f"{way}.linear_2"}
    names = {f"{mine}.{suffix}": f"{other}.{suffix}" for mine, other in both.items() for suffix in ("weight", "bias")}
    names |= stack_names(f"{image}.stack", f"{tower}.encoder.layers", spec.encoders["image"].depth, CLIP_LAYER)
    names[f"{image}.position"] = f"{tower}.embeddings.position_embedding.weight"
    rules = renamed(names) | cohere2_rules(spec, "language_model.")
    for half, part in enumerate(("up", "gate")):  # the file keeps the two in one matrix
        for suffix in ("weight", "bias"):
            rules[f"align.image.map.{part}.{suffix}"] = Rule((f"{way}.linear_1.{suffix}",), lambda w, half=half: w.chunk(2)[half])
    return rules


def _ignored(name: str) -> str | None:
    if name.startswith(("vision_tower.encoder.layers.", "vision_tower.post_layernorm.", "vision_tower.head.")):
        return "behind the picture layer that is read"
    return "counts 0, 1, 2, ..." if name.endswith("position_ids") else tied_head(name)


def _image(config: dict[str, Any], settings: dict[str, Any]) -> sn.StretchCodec:
    c = filled({**CLIP_PICTURES, **settings}, {"size": {"height": 364, "width": 364}, "max_patches": 12, "min_patches": 1})
    if c["size"]["height"] != c["size"]["width"]:
        raise ConfigError(f"preprocessor_config.json sets size to {c['size']}; only square tiles are built")
    return sn.StretchCodec(picture_codec(c["size"]["height"], "squash", c), most=c["max_patches"], least=c["min_patches"])


PUBLISHED["aya_vision"] = Published(_spec, _rules, _ignored, layout, module, _image, equals=llama_equals,
                                    keys={"config.json": KEYS, **processor_keys(TILES, more=TEXTS)})
register(Entry(name="aya_vision", full=aya_vision_8b, toy=_toy, batch=chats, parameters=8_631_842_032, unread=2_304,
               source="Aya Vision 8B, 2505.08751; CohereLabs/aya-vision-8b, CC-BY-NC-4.0"))
