"""Qwen2.5-VL: pictures and videos at their own sizes among the words of a Qwen2.5, with positions in time, rows and columns.

    patches -> windowed vision transformer -> 2 x 2 neighbours joined, MLP -\\
                                                                            splice -> causal decoder, three-axis positions -> next token
    ids -> vocabulary ------------------------------------------------------/

Source: 2502.13923; weights Qwen/Qwen2.5-VL-7B-Instruct, Apache-2.0; 3B and 72B under Qwen's own licences (not shipped here).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.codecs.native import ClipCodec, NativeCodec, from_config
from sensorium.settings import CONFIG, PICTURES, Keys
from sensorium.types import Batch, ConfigError
from sensorium.zoo.llama import llama, llama_equals, tied_head
from sensorium.zoo.published import SILU, filled, processor_keys, renamed, rope_keys, stack_names
from sensorium.zoo.qwen import DEFAULTS, published_qwen, qwen_decoder, qwen_names
from sensorium.zoo.qwen import KEYS as QWEN
from sensorium.zoo.registry import Entry, register

__all__ = ["qwen_vl", "qwen_vl_3b", "qwen_vl_72b", "qwen_vl_7b"]

TEXT = {**DEFAULTS, "vocab_size": 152_064, "hidden_size": 8192, "intermediate_size": 29_568, "num_hidden_layers": 80, "num_attention_heads": 64,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "max_window_layers": 80}
TOWER = {"depth": 32, "hidden_size": 3584, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14, "spatial_merge_size": 2,
         "temporal_patch_size": 2, "window_size": 112, "fullatt_block_indexes": (7, 15, 23, 31)}
ROPE = rope_keys("mrope", "linear", "llama3", more=("mrope_section",))
WORDS = QWEN | ROPE | Keys(built=("image_token_id", "video_token_id"), harmless=dict.fromkeys(
    ("vision_start_token_id", "vision_end_token_id", "vision_token_id"), "the chat template writes them"))
TURNS = Keys(built=("rope_theta",), only={"rope_type": ("axial", "default"), "partial_rotary_factor": (1.0, None)})
KEYS = WORDS | Keys(parts={"text_config": WORDS, "vision_config": CONFIG | Keys(
    built=(*TOWER, "in_channels", "in_chans", "out_hidden_size", "tokens_per_second"), only={"hidden_act": SILU}, parts={"rope_parameters": TURNS},
    harmless={"spatial_patch_size": "patch_size by another name"})})
SIZES = ("min_pixels", "max_pixels", "patch_size", "temporal_patch_size", "merge_size")
SEEN = PICTURES | Keys(built=SIZES, only={"resample": (3, None)})
FILMED = SEEN | Keys(
    built=("fps", "min_frames", "max_frames"), only={"cap_pixels_per_frame": (None, True)},
    harmless={**dict.fromkeys(("do_sample_frames", "num_frames", "video_metadata", "return_metadata"), "frames are picked as fps says"),
              "max_video_tokens": "of a program that serves the model"})
LAYER = {"attention_norm": "norm1", "attention.out": "attn.proj", "mlp_norm": "norm2", "mlp.gate": "mlp.gate_proj", "mlp.up": "mlp.up_proj",
         "mlp.down": "mlp.down_proj"}


def qwen_vl(tower: sn.NativeEncoder, text: sn.Model) -> sn.Model:
    """A picture tower, which videos go through too, before a language model."""
    inside, width = tower.width, text.decoder.width
    merge = sn.Merge(inside, width, size=tower.join, hidden=inside * tower.join**2, kind="rms", eps=tower.eps, grouped=True)
    return sn.Model(encoders={**text.encoders, "image": tower}, align={"image": merge}, through={"video": "image"},
                    fuse={"splice": sn.Splice(("image", "video"))}, decoder=text.decoder, heads=text.heads, objectives=text.objectives)


def _full(width: int, depth: int, heads: int, kv_heads: int, hidden: int, vocab: int = 152_064, tied: bool = False, inside: int = 3420) -> sn.Model:
    tower = sn.NativeEncoder(width=1280, depth=32, heads=16, hidden=inside, window=8, full=(7, 15, 23, 31))
    return qwen_vl(tower, llama(qwen_decoder(width, depth, heads, kv_heads, hidden, axes=(16, 24, 24)), vocab, tied))


def qwen_vl_3b() -> sn.Model:
    """Qwen2.5-VL 3B."""
    return _full(2048, 36, 16, 2, 11_008, 151_936, tied=True)


def qwen_vl_7b() -> sn.Model:
    """Qwen2.5-VL 7B."""
    return _full(3584, 28, 28, 4, 18_944)


def qwen_vl_72b() -> sn.Model:
    """Qwen2.5-VL 72B."""
    return _full(8192, 80, 64, 8, 29_568, inside=3456)


def _toy(tied: bool) -> sn.Model:
    tower = sn.NativeEncoder(patch=2, width=24, depth=2, heads=2, hidden=40, window=4, full=(1,))
    return qwen_vl(tower, llama(qwen_decoder(32, 2, 4, 2, 48, theta=1e4, axes=(2, 1, 1)), 60, tied))


def _chats(samples: Sequence[int], alone: bool = False) -> Batch:
    """A toy batch of pictures of several sizes, perhaps a video, a question and an answer; sample ``i`` is always the same."""
    packer, codec = sn.Packer(places={"image": 1, "video": 1}, row=96, end=3, axes=True), NativeCodec(patch=2)
    segments = []
    for number in samples:
        generator = torch.Generator().manual_seed(number)
        high, wide = 8 + 4 * (number % 2), 12 - 4 * (number % 3)
        parts = [sn.Arrays("text", [4] if number % 2 else [4, 6]),
                 codec.arrays("image", torch.randn(1, 3, high, wide, generator=generator)),
                 sn.Arrays("text", torch.randint(8, 60, (3 + number % 3,), generator=generator).tolist())]
        if number % 2:
            parts += [codec.arrays("video", torch.randn(3, 3, 4, 8, generator=generator), beats=2.5), sn.Arrays("text", [7, 9])]
        segments.append(packer.segment([*parts, sn.Arrays("text", torch.randint(8, 60, (4,), generator=generator).tolist(), target=True)]))
    return packer.pack(segments, alone=alone)


def _spec(config: dict[str, Any]) -> sn.Model:
    text = {**config, **(config.get("text_config") or {})}
    rope = dict(text.get("rope_scaling") or text.get("rope_parameters") or {})
    kind = rope.get("rope_type", rope.get("type", "default"))
    plain = {"rope_type": "default" if kind == "mrope" else kind, "rope_theta": rope.get("rope_theta", text.get("rope_theta", 1e6))}
    tied = config.get("tie_word_embeddings", False) or text.get("tie_word_embeddings", False)
    model = published_qwen({**text, "rope_scaling": None, "rope_parameters": {**rope, **plain}, "tie_word_embeddings": tied},
                           tuple(rope.get("mrope_section", (16, 24, 24))), TEXT)
    c = filled(config.get("vision_config") or {}, TOWER, {"hidden_act": SILU})
    if c.get("out_hidden_size", model.decoder.width) != model.decoder.width:
        raise ConfigError(f"config.json sets out_hidden_size to {c['out_hidden_size']} and hidden_size to {model.decoder.width}; make them equal")
    join = c["spatial_merge_size"]
    window = join * (c["window_size"] // join // c["patch_size"])
    tower = sn.NativeEncoder(patch=c["patch_size"], frames=c["temporal_patch_size"], width=c["hidden_size"], depth=c["depth"], heads=c["num_heads"],
                             hidden=c["intermediate_size"], channels=c.get("in_channels", c.get("in_chans", 3)), join=join, window=window,
                             full=tuple(c["fullatt_block_indexes"]), theta=(c.get("rope_parameters") or {}).get("rope_theta", 1e4))
    return qwen_vl(tower, model)


def _rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    stack, depth, both = "encoders.image.stack", spec.encoders["image"].depth, ("weight", "bias")
    norms = {mine: other for mine, other in LAYER.items() if mine.endswith("_norm")}
    names = qwen_names(spec) | stack_names(stack, "visual.blocks", depth, norms, ("weight",))
    names |= stack_names(stack, "visual.blocks", depth, {mine: other for mine, other in LAYER.items() if mine not in norms}, both)
    names |= {f"align.image.map.{mine}.{part}": f"visual.merger.mlp.{number}.{part}" for mine, number in (("up", 0), ("down", 2)) for part in both}
    rules = renamed(names | {"align.image.norm.weight": "visual.merger.ln_q.weight"})
    rules["encoders.image.patch.weight"] = Rule(("visual.patch_embed.proj.weight",), lambda w: w.flatten(1))
    for third, part in enumerate(("query", "key", "value")):  # the file keeps the three in one matrix
        for suffix in both:
            for i in range(depth):
                rules[f"{stack}.blocks.{i}.attention.{part}.{suffix}"] = Rule((f"visual.blocks.{i}.attn.qkv.{suffix}",),
                                                                             lambda w, n=third: w.chunk(3)[n])
    return rules


def _layout(name: str) -> str:
    """Every edition of the layout to the first: the tower beside the language model."""
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def _module(name: str) -> str:
    """A tensor of that edition as the library that published it calls it while it runs."""
    if name.startswith("visual."):
        return f"model.{name}"
    return name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name


def _codecs(config: dict[str, Any], pictures: dict[str, Any]) -> tuple[NativeCodec, ClipCodec]:
    return from_config(pictures, (config.get("vision_config") or {}).get("tokens_per_second", 4))


PUBLISHED["qwen2_5_vl"] = Published(_spec, _rules, tied_head, _layout, _module, equals=llama_equals,
                                    image=lambda config, pictures: _codecs(config, pictures)[0],
                                    video=lambda config, pictures: _codecs(config, pictures)[1],
                                    keys={"config.json": KEYS, **processor_keys(SEEN | FILMED, FILMED)})
for _name, _make, _count in (("3b", qwen_vl_3b, 3_754_622_976), ("7b", qwen_vl_7b, 8_292_166_656), ("72b", qwen_vl_72b, 73_410_777_344)):
    register(Entry(name=f"qwen_vl_{_name}", full=_make, toy=lambda tied=_name == "3b": _toy(tied), batch=_chats, parameters=_count,
                   source=f"Qwen2.5-VL {_name.upper()}, 2502.13923; Qwen/Qwen2.5-VL-{_name.upper()}-Instruct, "
                          f"{'Apache-2.0' if _name == '7b' else 'Qwen licence'}"))
