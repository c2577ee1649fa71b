"""Janus: one decoder reads pictures as features and writes them as codes, with eyes of its own for each.

    pixels -> SigLIP tower -> MLP ----------\\
    ids -> vocabulary -----------------------> Llama decoder -> next word, or next code of a picture
    codes -> vocabulary of codes -> MLP ----/                                     codes -> autoencoder -> pixels

Source: 2410.13848, Janus-Pro 2501.17811; weights deepseek-community/Janus-Pro-1B (MIT). The codes are LlamaGen's (2406.06525).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.settings import CONFIG, GENERATION, Keys
from sensorium.types import Batch, Written
from sensorium.zoo.llama import DEFAULTS as LLAMA
from sensorium.zoo.llama import KEYS as LLAMA_KEYS
from sensorium.zoo.llama import llama, llama_equals, llama_names, published_decoder, tied_head
from sensorium.zoo.llava import chats
from sensorium.zoo.published import CLIP_LAYER, filled, renamed, stack_names
from sensorium.zoo.registry import Entry, register

__all__ = ["janus", "janus_pro_1b"]

TEXT = LLAMA | {"vocab_size": 102_400, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16,
                "num_key_value_heads": 16, "tie_word_embeddings": False}
VISION = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "num_channels": 3, "image_size": 384, "patch_size": 16,
          "layer_norm_eps": 1e-6, "mlp_ratio": 4.0, "projection_dim": 2048}
VISION_FIXED = {"hidden_act": "gelu", "attention_bias": True, "use_qk_norm": False, "depth": 2}
VQ = {"embed_dim": 8, "num_embeddings": 16_384, "latent_channels": 256, "in_channels": 3, "base_channels": 128,
      "channel_multiplier": (1, 1, 2, 2, 4), "num_res_blocks": 2, "projection_dim": 2048}
VQ_FIXED = {"num_hidden_layers": 2, "double_latent": False, "out_channels": 3, "hidden_act": "gelu"}
KEYS = CONFIG | Keys(built=("pad_token_id", "kept", "image_token_id"), harmless={"tie_word_embeddings": "text_config says it"}, parts={
    "text_config": LLAMA_KEYS | Keys(only={"model_type": "llama"}),
    "vision_config": CONFIG | Keys(built=tuple(key for key in VISION if key != "projection_dim"), only=VISION_FIXED, harmless={
        "num_image_tokens": "it follows from the tower", "intermediate_size": "mlp_ratio says it",
        "projection_dim": "text_config's hidden_size says it"}),
    "vq_config": CONFIG | Keys(built=tuple(VQ), only=VQ_FIXED, harmless={
        "image_token_embed_dim": "text_config says it", "num_patches": "it follows from the tower"})})
WRITES = GENERATION | Keys(harmless={"guidance_scale": "how a picture is guided is what the request says",
                                     "generation_kwargs": "the tokenizer says it", "generation_config": "the tokenizer says it"})
TOWER = CLIP_LAYER | {"attention.out": "self_attn.projection_layer"}
CODER = (("encoders.pixels.mix.", "vqmodel.quant_conv."), ("heads.pixels.mix.", "vqmodel.post_quant_conv."), ("encoders.pixels.", "vqmodel.encoder."),
         ("heads.pixels.", "vqmodel.decoder."), ("coder.first.", "coder.conv_in."), ("coder.norm.", "coder.norm_out."),
         ("coder.last.", "coder.conv_out."), ("middle.before.", "mid.block_1."), ("middle.after.", "mid.block_2."), ("middle.look.", "mid.attn_1."),
         (".blocks.", ".block."), (".looks.", ".attn."), (".attention.query.", ".q."), (".attention.key.", ".k."), (".attention.value.", ".v."),
         (".attention.out.", ".proj_out."), (".first_norm.", ".norm1."), (".second_norm.", ".norm2."), (".first.", ".conv1."),
         (".second.", ".conv2."), (".short.", ".nin_shortcut."))


def janus(image: sn.VisionEncoder, text: sn.Model, compress: sn.Compress, expand: sn.Expand, codes: sn.Codes) -> sn.Model:
    """A picture tower, a language model, an autoencoder of patterns, and the head that writes their codes."""
    width = text.decoder.width
    return sn.Model(
        encoders={**text.encoders, "image": image, "image_codes": sn.Vocabulary(codes.codes, codes.pattern), "pixels": compress},
        align={"image": sn.Project(image.width, width, hidden=width, bias=True),
               "image_codes": sn.Project(codes.pattern, width, hidden=width, bias=True)},
        fuse={"splice": sn.Splice(("image",))},
        decoder=text.decoder,
        heads={**text.heads, "image": codes, "pixels": expand},
        objectives=(*text.objectives, sn.NextCode(), sn.Reconstruct()))


def _spec(config: dict[str, Any]) -> sn.Model:
    t, v = filled(config.get("text_config") or {}, TEXT), filled(config.get("vision_config") or {}, VISION, VISION_FIXED)
    q = filled(config.get("vq_config") or {}, VQ, VQ_FIXED)
    tower = sn.VisionEncoder(size=v["image_size"], patch=v["patch_size"], width=v["hidden_size"], depth=v["num_hidden_layers"],
                             heads=v["num_attention_heads"], hidden=int(v["hidden_size"] * v["mlp_ratio"]), eps=v["layer_norm_eps"],
                             channels=v["num_channels"], act="gelu", first=False, pre_norm=False, patch_bias=True, final_norm=True)
    sizes = dict(latents=q["embed_dim"], channels=q["in_channels"], blocks=q["num_res_blocks"], scale=1.0, looks=True, inner=q["latent_channels"],
                 spread=False)
    widths = tuple(q["base_channels"] * times for times in q["channel_multiplier"])
    codes = sn.Codes(t["hidden_size"], codes=q["num_embeddings"], pattern=q["embed_dim"], side=v["image_size"] // v["patch_size"],
                     hidden=q["projection_dim"], blank=config.get("pad_token_id", 100_002), kept=tuple(config.get("kept", (100_000, 100_016))))
    return janus(tower, llama(published_decoder(t), t["vocab_size"], tied=t["tie_word_embeddings"]), sn.Compress(widths, **sizes),
                 sn.Expand(widths, **sizes), codes)


def _coder(name: str) -> Rule:
    """A tensor of the autoencoder; its attention is made of 1 x 1 convolutions there."""
    there = name.replace(".next_size.map.", ".upsample.conv." if ".up." in name else ".downsample.conv.")
    for mine, other in CODER:
        there = there.replace(mine, other)
    return Rule((f"model.{there}",), (lambda w: w.flatten(1)) if ".attention." in name and name.endswith("weight") else None)


def _rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    image, both = "encoders.image", ("weight", "bias")
    names = {mine: other.replace("model.", "model.language_model.", 1) for mine, other in llama_names(spec).items()}
    names |= stack_names(f"{image}.stack", "model.vision_model.encoder.layers", spec.encoders["image"].depth, TOWER)
    names |= {f"{image}.position": "model.vision_model.embeddings.position_embedding.weight",
              "encoders.image_codes.token.weight": "model.generation_embeddings.weight",
              "heads.image.table.weight": "model.vqmodel.quantize.embedding.weight"}
    parts = {f"{image}.patch": "vision_model.embeddings.patch_embedding", f"{image}.stack.norm": "vision_model.post_layernorm",
             "align.image.map.up": "aligner.fc1", "align.image.map.down": "aligner.hidden_layers.0",
             "align.image_codes.map.up": "generation_aligner.fc1", "align.image_codes.map.down": "generation_aligner.hidden_layers.0",
             "heads.image.map.up": "generation_head.proj_out", "heads.image.map.down": "generation_head.vision_head"}
    names |= {f"{mine}.{suffix}": f"model.{other}.{suffix}" for mine, other in parts.items() for suffix in both}
    coder = [name for name in spec.build(device="meta").state_dict() if name.startswith(("encoders.pixels.", "heads.pixels."))]
    return renamed(names) | {name: _coder(name) for name in coder}


def janus_pro_1b() -> sn.Model:
    """Janus-Pro 1B, 2.1B parameters with everything."""
    return _spec({})


def _toy() -> sn.Model:
    return _spec({
        "text_config": {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                        "num_key_value_heads": 4},
        "vision_config": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8,
                          "projection_dim": 32},
        "vq_config": {"embed_dim": 4, "num_embeddings": 20, "latent_channels": 8, "base_channels": 32, "channel_multiplier": (1, 1, 1),
                      "num_res_blocks": 1, "projection_dim": 32}, "pad_token_id": 0, "kept": (1, 5)})


def _drawn(samples: Sequence[int], alone: bool = False) -> Batch:
    """A toy batch of prompts whose last token calls for a picture, and its codes; sample ``i`` is always the same."""
    batch, codes, states = chats(samples, alone=True), [], []
    for row, number in enumerate(samples):
        codes.append(torch.randint(0, 20, (1, 2, 2), generator=torch.Generator().manual_seed(100 + number)))
        states.append(row * batch.token_BT.shape[1] + int((batch.layout.segment_BT[row] >= 0).sum()) - 1)
    rows = torch.arange(len(codes))
    last = torch.tensor(states)
    places = batch.layout.position_BT.flatten()[last] + 1
    batch.media["pixels"] = torch.stack([torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(200 + n)) * 2 - 1 for n in samples])
    batch.written = {"image": Written(torch.stack(codes), rows, batch.layout.segment_BT.flatten()[last], places, last, torch.full_like(rows, -1))}
    return batch


PUBLISHED["janus"] = Published(_spec, _rules, tied_head, equals=llama_equals, keys={"config.json": KEYS, "generation_config.json": WRITES})
register(Entry(name="janus", full=janus_pro_1b, toy=_toy, batch=_drawn, parameters=2_076_636_811,
               source="Janus-Pro 1B, 2501.17811; deepseek-community/Janus-Pro-1B, MIT"))
