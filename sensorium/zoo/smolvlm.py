"""SmolVLM and Idefics3: a SigLIP tower looks at a picture's tiles and at the whole, and squares of patches become one position each.

    tiles, whole -> vision transformer -> pixel shuffle, linear -\\
                                                                 splice, among texts that name the tiles -> causal decoder -> next token
    ids -> vocabulary -------------------------------------------/

The published tower looks its places up by their fraction of the picture; for a square of the tower's own size, which tiles are, these are
the places in order.

Source: SmolVLM 2504.05299, Idefics3 2408.12637; weights HuggingFaceTB/SmolVLM-256M-Instruct, HuggingFaceM4/Idefics3-8B-Llama3, Apache-2.0.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.layers.positions import RopeScaling
from sensorium.settings import CONFIG, PICTURES, Keys
from sensorium.zoo.llama import DEFAULTS, FIXED, llama_decoder, llama_equals, llama_names, published_decoder, tied_head
from sensorium.zoo.llama import KEYS as LLAMA
from sensorium.zoo.llava import chats
from sensorium.zoo.published import CLIP_LAYER, GELU_TANH, TOWER, filled, picture_codec, processor_keys, renamed, stack_names
from sensorium.zoo.registry import Entry, register

__all__ = ["idefics3_8b", "siglip_tower", "smolvlm", "smolvlm_256m"]

TOWER_DEFAULTS = {"hidden_size": 1152, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 16, "num_channels": 3,
                  "image_size": 224, "patch_size": 32, "layer_norm_eps": 1e-6}
_OLD = dict.fromkeys(("perceiver_config", "qk_layer_norms", "use_resampler", "pixel_shuffle_factor", "scale_factor"), "of Idefics2, or said outside")
KEYS = CONFIG | Keys(
    built=("scale_factor", "tie_word_embeddings", "image_token_id"), parts={
        "text_config": LLAMA | Keys(only={"model_type": "llama"}, harmless={**_OLD, "tie_word_embeddings": "the one outside counts"}),
        "vision_config": TOWER | Keys(only={"hidden_act": GELU_TANH, "use_base_siglip": False}, harmless={
            "max_image_size": "the settings of pictures say it", "size": "the settings of pictures say it"})},
    harmless={**{key: why for key, why in _OLD.items() if key != "scale_factor"}, "_pad_token_id": "of training", "vocab_size": "text_config says it",
              "image_seq_len": "it follows from the tower"})
SPLIT = PICTURES | Keys(built=("max_image_size", "do_image_splitting"), harmless={
    "do_pad": "of batches; every picture has its own number of tiles here", "return_row_col_info": "what is reported"})
SAMPLED = Keys(parts={"video_sampling": Keys(built=("fps", "max_frames", "video_size"))})
FILMED = SPLIT | SAMPLED | Keys(built=("fps", "num_frames"), harmless={"do_sample_frames": "frames are picked as video_sampling says",
                                                                     "return_metadata": "what is reported"})
PARTS = ("vision_model.", "connector.")
INTRO = "You are provided the following series of {words} frames from a {length} [H:MM:SS] video.\n"


def smolvlm(image: sn.VisionEncoder, decoder: sn.Decoder, vocab: int, size: int, tied: bool = False) -> sn.Model:
    """A picture tower before a language model; ``size`` x ``size`` patches become one position."""
    return sn.Model(
        encoders={"text": sn.Vocabulary(vocab, decoder.width), "image": image},
        align={"image": sn.Merge(image.width, decoder.width, size=size, bias=False, norm=False)},
        fuse={"splice": sn.Splice(("image",))},
        decoder=decoder,
        heads={"text": sn.Tokens(decoder.width, vocab, tied=tied)},
        objectives=(sn.NextToken(),))


def siglip_tower(size: int, patch: int, width: int, depth: int, heads: int, hidden: int, eps: float = 1e-6, channels: int = 3) -> sn.VisionEncoder:
    """SigLIP's picture tower without its pooling."""
    return sn.VisionEncoder(size=size, patch=patch, width=width, depth=depth, heads=heads, hidden=hidden, eps=eps, channels=channels,
                            act="gelu_tanh", first=False, pre_norm=False, patch_bias=True, cropped=size % patch > 0)


def smolvlm_256m() -> sn.Model:
    """SmolVLM on SmolLM2-135M, 256M parameters."""
    return smolvlm(siglip_tower(512, 16, 768, 12, 12, 3072), llama_decoder(576, 30, 9, 1536, kv_heads=3, theta=1e5), 49_280, 4)


def idefics3_8b() -> sn.Model:
    """Idefics3 on Llama 3.1 8B, 8.5B parameters."""
    decoder = llama_decoder(4096, 32, 32, 14_336, kv_heads=8, theta=5e5, scaling=RopeScaling(8.0, context=8192))
    return smolvlm(siglip_tower(364, 14, 1152, 27, 16, 4304), decoder, 128_259, 2)


def _toy() -> sn.Model:
    return smolvlm(siglip_tower(16, 4, 24, 2, 2, 40), llama_decoder(32, 2, 4, 48, kv_heads=2), 60, 2)


def _spec(config: dict[str, Any]) -> sn.Model:
    vision = filled(config.get("vision_config") or {}, TOWER_DEFAULTS, {"hidden_act": GELU_TANH})
    text = filled(config.get("text_config") or {}, {**DEFAULTS, "rms_norm_eps": 1e-5}, {**FIXED, "model_type": "llama"})
    tower = siglip_tower(vision["image_size"], vision["patch_size"], vision["hidden_size"], vision["num_hidden_layers"],
                         vision["num_attention_heads"], vision["intermediate_size"], vision["layer_norm_eps"], vision["num_channels"])
    return smolvlm(tower, published_decoder(text), text["vocab_size"], config.get("scale_factor", 2), config.get("tie_word_embeddings", False))


def _rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    image, tower = "encoders.image", "vision_model"
    both = {f"{image}.patch": f"{tower}.embeddings.patch_embedding", f"{image}.stack.norm": f"{tower}.post_layernorm"}
    names = {f"{mine}.{suffix}": f"{other}.{suffix}" for mine, other in both.items() for suffix in ("weight", "bias")}
    names |= {f"{image}.position": f"{tower}.embeddings.position_embedding.weight",
              "align.image.map.weight": "connector.modality_projection.proj.weight"}
    names |= stack_names(f"{image}.stack", f"{tower}.encoder.layers", spec.encoders["image"].depth, CLIP_LAYER)
    return renamed(names | llama_names(spec))


def _rename(name: str) -> str:
    name = name.removeprefix("model.") if name.removeprefix("model.").startswith(PARTS) else name
    return name.replace("model.text_model.", "model.", 1)


def _module(name: str) -> str:
    return f"model.{name}" if name.startswith(PARTS) else name.replace("model.", "model.text_model.", 1)


def _ignored(name: str) -> str | None:
    return "counts 0, 1, 2, ..." if name.endswith("position_ids") else tied_head(name)


def _image(config: dict[str, Any], settings: dict[str, Any]) -> sn.SplitCodec:
    c = filled(settings, {"size": {"longest_edge": 4 * 364}, "max_image_size": {"longest_edge": 364}, "do_image_splitting": True, "resample": 1})
    return sn.SplitCodec(picture_codec(c["max_image_size"]["longest_edge"], "squash", c), longest=c["size"]["longest_edge"],
                         split=c["do_image_splitting"])


def _video(config: dict[str, Any], settings: dict[str, Any]) -> sn.FramesCodec:
    sampling = filled(settings.get("video_sampling") or {}, {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 512}})
    frame = replace(_image(config, settings), longest=sampling["video_size"]["longest_edge"], split=False)
    return sn.FramesCodec(frame, most=sampling["max_frames"], rate_hz=sampling["fps"], before=INTRO, mark="\nFrame from {time}:", after="\n\n")


PUBLISHED["idefics3"] = Published(_spec, _rules, _ignored, _rename, _module, _image, equals=llama_equals,
                                  keys={"config.json": KEYS, **processor_keys(SPLIT | SAMPLED)})
PUBLISHED["smolvlm"] = Published(_spec, _rules, _ignored, _rename, _module, _image, _video, equals=llama_equals,
                                 keys={"config.json": KEYS, **processor_keys(SPLIT | SAMPLED, FILMED)})
register(Entry(name="smolvlm", full=smolvlm_256m, toy=_toy, batch=chats, parameters=256_484_928,
               source="SmolVLM 256M, 2504.05299; HuggingFaceTB/SmolVLM-256M-Instruct, Apache-2.0"))
register(Entry(name="idefics3", full=idefics3_8b, toy=_toy, batch=chats, parameters=8_462_086_384,
               source="Idefics3 8B, 2408.12637; HuggingFaceM4/Idefics3-8B-Llama3, Apache-2.0"))
