"""LLaVA-NeXT: LLaVA that sees the whole picture and its tiles, as many as its shape asks for; a learned vector ends each row of patches.

    the whole, then tiles -> CLIP tower -> MLP -> what the picture covers, and ends of rows -\\
                                                                                             splice -> causal decoder -> next token
    ids -> vocabulary -----------------------------------------------------------------------/

Source: llava-vl.github.io/blog/2024-01-30-llava-next; weights llava-hf/llava-v1.6-mistral-7b-hf, Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.settings import PICTURES, Keys
from sensorium.types import Batch
from sensorium.zoo.llama import llama_decoder, llama_equals
from sensorium.zoo.llava import KEYS as LLAVA
from sensorium.zoo.llava import ignored, layout, llava, llava_rules, llava_spec, module
from sensorium.zoo.published import CLIP_PICTURES, filled, fit_of, picture_codec, processor_keys
from sensorium.zoo.registry import Entry, register

__all__ = ["llava_next", "llava_next_7b", "tiled_chats"]

GRIDS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
FIXED = {"vision_feature_select_strategy": "default"}
KEYS = LLAVA | Keys(built=("image_grid_pinpoints",), only={**FIXED, "use_image_newline_parameter": (True, None)})
TILES = PICTURES | Keys(built=("image_grid_pinpoints",), only={"do_center_crop": (True, None)}, harmless={
    "do_pad": "of batches; every picture has its own number of tiles here"})


def llava_next(model: sn.Model) -> sn.Model:
    """A LLaVA whose splice has a vector of its own, that ends rows."""
    return replace(model, fuse={"splice": sn.Splice(("image",), own=1, width=model.decoder.width)})


def llava_next_7b() -> sn.Model:
    """LLaVA 1.6 on Mistral 7B, with the 23 of 24 picture layers that are read."""
    return llava_next(llava(sn.VisionEncoder(size=336, patch=14, width=1024, depth=23, heads=16, final_norm=False),
                            llama_decoder(4096, 32, 32, 14_336, kv_heads=8, theta=1e6), 32_064))


def _toy() -> sn.Model:
    return llava_next(llava(sn.VisionEncoder(size=16, patch=8, width=24, depth=2, heads=2, final_norm=False),
                            llama_decoder(32, 2, 4, 48, kv_heads=2), 60))


def tiled_chats(samples: Sequence[int], alone: bool = False) -> Batch:
    """A toy batch of a picture in tiles, a question and an answer; sample ``i`` is always the same."""
    packer = sn.Packer(places={"image": 4}, row=80, end=3)
    codec, segments = sn.AnyresCodec(sn.VisionCodec(size=16), grids=((16, 32), (32, 16), (32, 32)), side=2), []
    for number in samples:
        generator = torch.Generator().manual_seed(number)
        shape = [(20, 40), (40, 30), (32, 32)][number % 3]
        picture = codec.encode(sn.Image(torch.rand(3, *shape, generator=generator)))
        ask, answer = (torch.randint(8, 60, (length,), generator=generator).tolist() for length in (3, 4))
        segments.append(packer.segment([sn.Arrays("text", [4]), picture, sn.Arrays("text", ask), sn.Arrays("text", answer, target=True)]))
    return packer.pack(segments, alone=alone)


def _spec(config: dict[str, Any]) -> sn.Model:
    return llava_next(llava_spec(filled(config, {}, FIXED)))


def _image(config: dict[str, Any], settings: dict[str, Any]) -> sn.AnyresCodec:
    vision = filled(config.get("vision_config") or {}, {"image_size": 336, "patch_size": 14})
    grids = config.get("image_grid_pinpoints") or settings.get("image_grid_pinpoints") or GRIDS
    fit_of(settings, vision["image_size"])  # tiles are cut, and the whole is squeezed into one
    return sn.AnyresCodec(picture_codec(vision["image_size"], "squash", {**CLIP_PICTURES, **settings}), tuple((high, wide) for high, wide in grids),
                          vision["image_size"] // vision["patch_size"])


def _rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    return llava_rules(spec, config) | {"fuse.splice.own": Rule(("image_newline",), lambda x: x[None])}


PUBLISHED["llava_next"] = Published(_spec, _rules, ignored, layout, module, _image, equals=llama_equals,
                                    keys={"config.json": KEYS, **processor_keys(TILES)})
register(Entry(name="llava_next", full=llava_next_7b, toy=_toy, batch=tiled_chats, parameters=7_566_747_648, unread=12_596_224 + 2_048,
               source="LLaVA 1.6 Mistral 7B; llava-hf/llava-v1.6-mistral-7b-hf, Apache-2.0"))
