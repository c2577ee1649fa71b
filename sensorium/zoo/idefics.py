"""IDEFICS: Flamingo with open weights; a Llama looks at pictures through gated layers set between its own.

    pixels -> CLIP's tower, all places -> perceiver: 64 learned queries -\\
                                                                         tanh-gated cross-attention before every fourth decoder layer
    ids -> vocabulary and a few words of its own -----------------------> Llama -> next token

A token sees the latest picture at or before its ``<image>``. The published program also hides pictures from what follows an end of text; here
texts are samples of their own, which never see each other's pictures. Words added to Llama's vocabulary are stored apart and joined here.

Source: 2306.16527; weights HuggingFaceM4/idefics-9b (MIT for what was trained, Llama 1 terms for the decoder).
"""

from __future__ import annotations

from typing import Any

import torch

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.codecs.tiles import MarkedCodec
from sensorium.settings import CONFIG, PICTURES, Keys
from sensorium.types import ConfigError
from sensorium.zoo.clip import vision_names
from sensorium.zoo.llama import llama_decoder, llama_equals, llama_names, rope_settings, tied_head
from sensorium.zoo.llava import chats
from sensorium.zoo.published import CLIP_PICTURES, LLAMA_LAYER, SILU, activation, filled, picture_codec, processor_keys, renamed, rope_keys
from sensorium.zoo.registry import Entry, register

__all__ = ["idefics", "idefics_9b"]

DEFAULTS = {"vocab_size": 32_000, "additional_vocab_size": 0, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
            "num_attention_heads": 32, "rms_norm_eps": 1e-6, "alpha_type": "float", "cross_layer_interval": 1, "qk_layer_norms": False,
            "use_resampler": False}
FIXED = {"hidden_act": SILU, "tie_word_embeddings": False}
VISION = {"embed_dim": 768, "image_size": 224, "intermediate_size": 5120, "patch_size": 14, "num_hidden_layers": 32, "num_attention_heads": 16,
          "num_channels": 3, "hidden_act": "gelu", "layer_norm_eps": 1e-5}
PERCEIVER = {"resampler_n_latents": 64, "resampler_depth": 6, "resampler_n_heads": 16, "resampler_head_dim": 96, "qk_layer_norms_perceiver": False}
_HELD = {**dict.fromkeys((
    "freeze_text_layers", "freeze_text_module_exceptions", "freeze_lm_head", "freeze_vision_layers", "freeze_vision_module_exceptions",
    "alpha_initializer", "alphas_initializer_range"), "for training"), "max_sequence_length": "max_position_embeddings by an older name",
    "word_embed_proj_dim": "hidden_size by an "
    "older name", **dict.fromkeys(("vision_embed_dim", "vision_image_size", "vision_model_name", "vision_intermediate_size", "vision_patch_size",
                                  "vision_num_attention_heads", "vision_num_hidden_layers", "vision_layer_norm_eps"), "vision_config says it"),
    **dict.fromkeys(("resampler_n_latents", "resampler_depth", "resampler_n_heads", "resampler_head_dim", "qk_layer_norms_perceiver"),
                    "perceiver_config says it")}
KEYS = CONFIG | rope_keys("linear", "llama3") | Keys(
    built=(*DEFAULTS, "max_position_embeddings"), only=FIXED, harmless=_HELD, parts={
        "vision_config": CONFIG | Keys(built=tuple(VISION), harmless={"num_key_value_heads": "every head has its own",
                                                                      "projection_dim": "it is not read",
                                                                     "hidden_size": "embed_dim is the one that counts",
                                                                     "vision_model_name": "a note"}),
        "perceiver_config": CONFIG | Keys(built=tuple(PERCEIVER), harmless={"use_resampler": "the one outside counts"})})
SEEN = PICTURES | Keys(built=("image_size",), only={"image_num_channels": (3, None)})


def idefics(image: sn.VisionEncoder, resample: sn.Resample | None, decoder: sn.Decoder, vocab: int, every: int, gates: str = "one",
            qk_norm: bool = False) -> sn.Model:
    """A picture tower, perhaps a perceiver, a decoder, and a gated layer before each ``every`` decoder layers, with the decoder's own shape."""
    stack = decoder.read
    cross = sn.CrossAttend("image", width=stack.width, source=resample.outside if resample else image.width, layers=stack.depth, every=every,
                           heads=stack.heads, hidden=stack.hidden, act="silu", gated=True, norm="rms", eps=stack.eps, qk_norm=qk_norm, gates=gates)
    return sn.Model(encoders={"text": sn.Vocabulary(vocab, stack.width), "image": image}, align={"image": resample} if resample else {},
                    fuse={"cross": cross}, decoder=decoder, heads={"text": sn.Tokens(stack.width, vocab)}, objectives=(sn.NextToken(),))


def _tower(c: dict[str, Any]) -> sn.VisionEncoder:
    return sn.VisionEncoder(size=c["image_size"], patch=c["patch_size"], width=c["embed_dim"], depth=c["num_hidden_layers"],
                            heads=c["num_attention_heads"], hidden=c["intermediate_size"], act=activation(c["hidden_act"]), eps=c["layer_norm_eps"],
                            channels=c["num_channels"], final_norm=False)


def idefics_9b() -> sn.Model:
    """IDEFICS, 9B: Llama 7B and the tower of CLIP ViT-H/14."""
    return idefics(_tower({**VISION, "embed_dim": 1280}), sn.Resample(1280, 1280, queries=64, depth=6, heads=16, head_width=96, act="relu",
                                                                      qk_norm=True),
                   llama_decoder(4096, 32, 32, 11_008, eps=1e-6), 32_002, every=4, qk_norm=True)


def _toy() -> sn.Model:
    return idefics(sn.VisionEncoder(size=16, patch=8, width=24, depth=1, heads=2, final_norm=False, act="gelu"),
                   sn.Resample(24, 24, queries=3, depth=2, heads=2, head_width=8, act="relu", qk_norm=True), llama_decoder(32, 4, 4, 48), 60, 2,
                   gates="each", qk_norm=True)


def _spec(config: dict[str, Any]) -> sn.Model:
    c = filled(config, DEFAULTS, FIXED)
    vision, seen = filled(c.get("vision_config") or {}, VISION), filled(c.get("perceiver_config") or {}, PERCEIVER)
    if c["num_hidden_layers"] % c["cross_layer_interval"] or c["alpha_type"] not in ("float", "vector"):
        raise ConfigError(f"config.json sets {c['num_hidden_layers']} layers, cross_layer_interval {c['cross_layer_interval']} and alpha_type "
                          f"{c['alpha_type']!r}; wanted an interval that divides the layers, and 'float' or 'vector'")
    image, resample = _tower(vision), None
    if c["use_resampler"]:
        resample = sn.Resample(image.width, image.width, queries=seen["resampler_n_latents"], depth=seen["resampler_depth"], act="relu",
                               heads=seen["resampler_n_heads"], head_width=seen["resampler_head_dim"], qk_norm=seen["qk_layer_norms_perceiver"])
    decoder = llama_decoder(c["hidden_size"], c["num_hidden_layers"], c["num_attention_heads"], c["intermediate_size"], eps=c["rms_norm_eps"],
                            **rope_settings(c))
    return idefics(image, resample, decoder, c["vocab_size"] + c["additional_vocab_size"], c["cross_layer_interval"],
                   {"float": "one", "vector": "each"}[c["alpha_type"]], c["qk_layer_norms"])


def _rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    cross, more = spec.fuse["cross"], filled(config, DEFAULTS)["additional_vocab_size"]
    names = llama_names(spec) | vision_names("encoders.image", "model.vision_model", spec.encoders["image"].depth, final=False)
    layer = {"norm" if mine == "attention_norm" else mine: other.replace("self_attn", "cross_attn") for mine, other in LLAMA_LAYER.items()}
    layer |= {f"attention.{which}_norm": f"cross_attn.{which[0]}_layer_norm" for which in (("query", "key") if cross.qk_norm else ())}
    rules: dict[str, Rule] = {}
    for number, at in enumerate(range(0, cross.layers, cross.every)):
        ours, theirs = f"fuse.cross.layers.{at}", f"model.gated_cross_attn_layers.{number}"
        names |= {f"{ours}.{mine}.weight": f"{theirs}.{other}.weight" for mine, other in layer.items()}
        rules |= {f"{ours}.{mine}": Rule((f"{theirs}.{other}",), torch.Tensor.flatten)
                  for mine, other in (("gate", "alpha_cross_attn"), ("mlp_gate", "alpha_dense"))}
    if "image" in spec.align:
        names |= _perceiver_names(spec.align["image"])
    if more:
        for mine, word in (("encoders.text.token.weight", "additional_embedding"), ("heads.text.out.weight", "additional_fc")):
            rules[mine] = Rule((names[mine], names[mine].replace(".weight", f".{word}.weight")), lambda old, new: torch.cat([old, new]))
    return renamed(names) | rules


def _perceiver_names(spec: sn.Resample) -> dict[str, str]:
    theirs = "model.perceiver_resampler"
    names = {"align.image.queries": f"{theirs}.latents"} | {f"align.image.norm.{s}": f"{theirs}.layer_norm.{s}" for s in ("weight", "bias")}
    norms = {"source_norm": "0.context_layer_norm", "query_norm": "0.latents_layer_norm", "mlp_norm": "1.ln"}
    norms |= {f"attention.{which}_norm": f"0.{which[0]}_layer_norm" for which in (("query", "key") if spec.qk_norm else ())}
    plain = {"attention.query": "0.q_proj", "attention.key": "0.k_proj", "attention.value": "0.v_proj", "attention.out": "0.output_proj",
             "mlp.up": "1.fc", "mlp.down": "1.c_proj"}
    for i in range(spec.depth):
        for some, suffixes in ((norms, ("weight", "bias")), (plain, ("weight",))):
            names |= {f"align.image.layers.{i}.{mine}.{s}": f"{theirs}.blocks.{i}.{other}.{s}" for mine, other in some.items() for s in suffixes}
    return names


def _ignored(name: str) -> str | None:
    if name.startswith("model.vision_model.post_layernorm."):
        return "of the tower's first place alone, which is not read"
    return "counts 0, 1, 2, ..." if name.endswith("position_ids") else tied_head(name)


def _image(config: dict[str, Any], settings: dict[str, Any]) -> MarkedCodec:
    size = settings.get("image_size") or (settings.get("size") or {}).get("height") or filled(config.get("vision_config") or {}, VISION)["image_size"]
    edge = "<fake_token_around_image>"
    return MarkedCodec(picture_codec(size, "squash", {**CLIP_PICTURES, **settings}), edge, f"<image>{edge}")


PUBLISHED["idefics"] = Published(_spec, _rules, _ignored, image=_image, equals=llama_equals, keys={"config.json": KEYS, **processor_keys(SEEN)})
register(Entry(name="idefics", full=idefics_9b, toy=_toy, batch=lambda samples, alone=False: chats(samples, alone, places=0),
               parameters=8_929_679_632, unread=2_560, source="IDEFICS 9B, 2306.16527; HuggingFaceM4/idefics-9b"))
