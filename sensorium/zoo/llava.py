"""LLaVA: a CLIP picture tower's patches, through a small MLP, stand among the words of a language model.

    pixels -> vision transformer (an inner layer, no class token) -> MLP -\\
                                                                          splice -> causal decoder -> next token
    ids -> vocabulary ---------------------------------------------------/

Source: 2304.08485, 1.5 in 2310.03744; weights llava-hf/llava-1.5-7b-hf under the Llama 2 licence (not shipped here).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.settings import CONFIG, PICTURES, Keys
from sensorium.types import Batch, ConfigError
from sensorium.zoo.clip import vision_defaults, vision_names
from sensorium.zoo.llama import DEFAULTS, FIXED, llama, llama_decoder, llama_equals, llama_names, published_decoder, tied_head
from sensorium.zoo.llama import KEYS as LLAMA
from sensorium.zoo.published import CLIP_LAYER, CLIP_PICTURES, TOWER, activation, filled, fit_of, picture_codec, processor_keys, renamed, stack_names
from sensorium.zoo.qwen import KEYS as QWEN
from sensorium.zoo.qwen import published_qwen, qwen_names
from sensorium.zoo.registry import Entry, register
from sensorium.zoo.siglip import VISION_DEFAULTS as siglip_defaults

__all__ = ["chats", "ignored", "layout", "llava", "llava_7b", "llava_rules", "llava_spec", "module"]

TOWER_DEFAULTS = {**vision_defaults, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
                  "image_size": 336, "patch_size": 14}
MISTRAL = {"num_key_value_heads": 8, "intermediate_size": 14_336, "sliding_window": 4096}
KEYS = CONFIG | Keys(
    built=("projector_hidden_act", "vision_feature_layer", "multimodal_projector_bias", "image_token_index", "image_token_id",
           "vision_feature_select_strategy"),
    harmless={"image_seq_length": "it follows from the tower", "vocab_size": "text_config says it", "tie_word_embeddings": "text_config says it"},
    parts={"text_config": LLAMA | QWEN | Keys(built=("attention_bias", "mlp_bias"), only={"model_type": ("llama", "mistral", "qwen2")}),
           "vision_config": TOWER | Keys(only={"model_type": ("clip_vision_model", "siglip_vision_model")}, harmless={
               "projection_dim": "behind the layer that is read", "vision_use_head": "behind the layer that is read",
               "vocab_size": "a tower has no words"})})
SEEN = PICTURES | Keys(built=("do_center_crop", "crop_size"), only={"do_pad": (False, None)},
                       harmless={"image_grid_pinpoints": "of models that read tiles"})


def llava(image: sn.VisionEncoder, decoder: sn.Decoder, vocab: int, act: str = "gelu", bias: bool = True, skip: int = 1,
          tied: bool = False) -> sn.Model:
    """A picture tower, an MLP and a decoder; ``skip`` leading positions (the class token) are left out."""
    return sn.Model(
        encoders={"text": sn.Vocabulary(vocab, decoder.width), "image": image},
        align={"image": sn.Project(image.width, decoder.width, hidden=decoder.width, act=act, bias=bias, skip=skip)},
        fuse={"splice": sn.Splice(("image",))},
        decoder=decoder,
        heads={"text": sn.Tokens(decoder.width, vocab, tied=tied)},
        objectives=(sn.NextToken(),))


def llava_7b() -> sn.Model:
    """LLaVA 1.5, 7B, with the 23 of 24 picture layers that are read."""
    return llava(sn.VisionEncoder(size=336, patch=14, width=1024, depth=23, heads=16, final_norm=False),
                 llama_decoder(4096, 32, 32, 11_008), 32_064)


def _toy() -> sn.Model:
    return llava(sn.VisionEncoder(size=16, patch=8, width=24, depth=2, heads=2, final_norm=False), llama_decoder(32, 2, 4, 48, kv_heads=2), 60)


def chats(samples: Sequence[int], alone: bool = False, places: int = 4) -> Batch:
    """A toy batch of a picture, a question and an answer; sample ``i`` is always the same. ``places`` 0 enters by cross-attention."""
    packer = sn.Packer(places={"image": places}, row=48, end=3, markers={"image": 5})
    segments = []
    for number in samples:
        generator = torch.Generator().manual_seed(number)
        parts = [sn.Arrays("text", [4] if number % 2 else [4, 6]), sn.Arrays("image", torch.randn(3, 16, 16, generator=generator)),
                 sn.Arrays("text", torch.randint(8, 60, (3 + number % 3,), generator=generator).tolist())]
        if number % 2:
            parts += [sn.Arrays("image", torch.randn(3, 16, 16, generator=generator)), sn.Arrays("text", [7, 9])]
        segments.append(packer.segment([*parts, sn.Arrays("text", torch.randint(8, 60, (4,), generator=generator).tolist(), target=True)]))
    return packer.pack(segments, alone=alone)


def llava_spec(config: dict[str, Any]) -> sn.Model:
    """The sentence that a published config describes."""
    filled(config, {}, {"vision_feature_select_strategy": ("default", "full")})
    vision, layer = config.get("vision_config") or {}, config.get("vision_feature_layer", -2)
    clip = _sees_as(config) == "clip_vision_model"
    vision = filled(vision, TOWER_DEFAULTS if clip else siglip_defaults, {"model_type": ("clip_vision_model", "siglip_vision_model")})
    if not isinstance(layer, int):
        raise ConfigError(f"config.json sets vision_feature_layer to {layer!r}; only one layer is built")
    depth = vision["num_hidden_layers"] + 1 + layer if layer < 0 else layer
    image = sn.VisionEncoder(size=vision["image_size"], patch=vision["patch_size"], width=vision["hidden_size"], depth=depth,
                             heads=vision["num_attention_heads"], hidden=vision["intermediate_size"], act=activation(vision["hidden_act"]),
                             eps=vision["layer_norm_eps"], channels=vision["num_channels"], final_norm=False, first=clip, pre_norm=clip,
                             patch_bias=not clip, cropped=not clip and vision["image_size"] % vision["patch_size"] > 0)
    skip = 1 if config.get("vision_feature_select_strategy", "default") == "default" else 0
    text = _language(config.get("text_config") or {})
    head = text.heads["text"]
    return llava(image, text.decoder, head.vocab, act=activation(config.get("projector_hidden_act", "gelu")),
                 bias=config.get("multimodal_projector_bias", True), skip=skip, tied=head.tied)


def _sees_as(config: dict[str, Any]) -> str:
    return (config.get("vision_config") or {}).get("model_type", "clip_vision_model")


def _language(config: dict[str, Any]) -> sn.Model:
    """The language model of a published text_config."""
    kind = config.get("model_type", "llama")
    if kind == "qwen2":
        return published_qwen(config)
    text = filled(config, {**DEFAULTS, **(MISTRAL if kind == "mistral" else {})}, {**FIXED, "model_type": ("llama", "mistral", "qwen2")})
    decoder = published_decoder(text)
    if kind == "mistral" and text["sliding_window"]:
        decoder = sn.Decoder(replace(decoder.read, windows=(text["sliding_window"],) * decoder.depth))
    return llama(decoder, text["vocab_size"], tied=text["tie_word_embeddings"])


def llava_rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    """How each parameter is made of the tensors of :func:`layout`."""
    depth, qwen = spec.encoders["image"].depth, (config.get("text_config") or {}).get("model_type") == "qwen2"
    if _sees_as(config) == "clip_vision_model":
        names = vision_names("encoders.image", "vision_tower", depth, final=False)
    else:
        names = stack_names("encoders.image.stack", "vision_tower.encoder.layers", depth, CLIP_LAYER)
        names |= {f"encoders.image.patch.{suffix}": f"vision_tower.embeddings.patch_embedding.{suffix}" for suffix in ("weight", "bias")}
        names["encoders.image.position"] = "vision_tower.embeddings.position_embedding.weight"
    names |= (qwen_names if qwen else llama_names)(spec, "language_model.")
    names |= {f"align.image.map.{mine}.{suffix}": f"multi_modal_projector.{other}.{suffix}"
              for mine, other in (("up", "linear_1"), ("down", "linear_2")) for suffix in ("weight", "bias")}
    return renamed(names)


def layout(name: str) -> str:
    """Every edition of the layout to one: the tower with or without its wrapper, the decoder with its head inside or beside it."""
    name = name.removeprefix("model.").replace("vision_tower.vision_model.", "vision_tower.")
    if name.startswith("language_model.") and not name.startswith(("language_model.model.", "language_model.lm_head.")):
        name = name.replace("language_model.", "language_model.model.", 1)
    return f"language_model.{name}" if name.startswith("lm_head.") else name


def module(name: str) -> str:
    """A tensor of :func:`layout` as the library that published it calls it while it runs."""
    return "lm_head.weight" if name.startswith("language_model.lm_head.") else f"model.{name.replace('language_model.model.', 'language_model.')}"


def ignored(name: str) -> str | None:
    """Why a tensor is not needed, or None."""
    if name.startswith(("vision_tower.encoder.layers.", "vision_tower.post_layernorm.", "vision_tower.head.")):
        return "behind the picture layer that is read"
    return "counts 0, 1, 2, ..." if name.endswith("position_ids") else tied_head(name)


def _image(config: dict[str, Any], settings: dict[str, Any]) -> sn.VisionCodec:
    vision = config.get("vision_config") or {}
    clip = _sees_as(config) == "clip_vision_model"
    size = vision.get("image_size", (TOWER_DEFAULTS if clip else siglip_defaults)["image_size"])
    crops = "Siglip" not in str(settings.get("image_processor_type", ""))
    return picture_codec(size, fit_of(settings, size, crops), {**(CLIP_PICTURES if crops else {}), **settings})


PUBLISHED["llava"] = Published(llava_spec, llava_rules, ignored, layout, module, _image, equals=llama_equals,
                               keys={"config.json": KEYS, **processor_keys(SEEN)})
register(Entry(name="llava", full=llava_7b, toy=_toy, batch=chats, parameters=7_063_427_072, unread=12_596_224 + 2_048,
               source="LLaVA 1.5 7B, 2310.03744; llava-hf/llava-1.5-7b-hf, Llama 2 licence"))
