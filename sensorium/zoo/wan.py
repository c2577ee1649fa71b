"""Wan 2.1: a text becomes a video, drawn whole as patches of space and time by one transformer (Sora-like).

    prompt -> umT5's tower -> MLP --------------\\
    noise -> patches of space and time -> [self-attention; look at the prompt; MLP; told the time] x layers -> latents -> frames

Source: 2503.20314; weights Wan-AI/Wan2.1-T2V-1.3B-Diffusers and -14B (Apache-2.0), in diffusers' layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.types import Batch, Written
from sensorium.zoo.published import filled, renamed
from sensorium.zoo.registry import Entry, register
from sensorium.zoo.t5 import t5_names, t5_tower

__all__ = ["wan", "wan_1b"]

UMT5 = {"model_type": "umt5", "vocab_size": 256_384}
DIT = {"patch_size": (1, 2, 2), "num_attention_heads": 12, "attention_head_dim": 128, "in_channels": 16, "text_dim": 4096, "freq_dim": 256,
       "ffn_dim": 8960, "num_layers": 30, "eps": 1e-6, "frames": 21, "height": 60, "width": 104, "words": 512}
DIT_FIXED = {"cross_attn_norm": True, "qk_norm": "rms_norm_across_heads", "image_dim": None, "added_kv_proj_dim": None}
VAE = {"base_dim": 96, "z_dim": 16, "dim_mult": (1, 2, 4, 4), "num_res_blocks": 2, "temperal_downsample": (False, True, True),
       "latents_mean": (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497,
                        0.2503, -0.2921),
       "latents_std": (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251,
                       1.9160)}
VAE_FIXED = {"is_residual": False, "in_channels": 3, "out_channels": 3, "patch_size": None, "attn_scales": []}
LAYER = {"attention.out": "attn1.to_out.0", "mlp.up": "ffn.net.0.proj", "mlp.down": "ffn.net.2"}
CROSS = {"norm": "norm2", "attention.query": "attn2.to_q", "attention.key": "attn2.to_k", "attention.value": "attn2.to_v",
         "attention.out": "attn2.to_out.0"}
CODER = (("encoders.pixels.mix.", "vae.quant_conv."), ("heads.pixels.mix.", "vae.post_quant_conv."), ("encoders.pixels.", "vae.encoder."),
         ("heads.pixels.", "vae.decoder."), ("coder.first.", "coder.conv_in."), ("coder.norm.", "coder.norm_out."),
         ("coder.last.", "coder.conv_out."), ("coder.before.", "coder.mid_block.resnets.0."), ("coder.after.", "coder.mid_block.resnets.1."),
         ("coder.look.norm.", "coder.mid_block.attentions.0.norm."), (".up.", ".up_blocks."), (".blocks.", ".resnets."),
         (".first_norm.", ".norm1."), (".second_norm.", ".norm2."), (".first.", ".conv1."), (".second.", ".conv2."), (".short.", ".conv_shortcut."),
         (".next_size.plane.", ".upsamplers.0.resample.1."), (".next_size.time.", ".upsamplers.0.time_conv."))


def wan(tower: sn.RelativeEncoder, stack: sn.Stack, head: sn.VideoFlow, words: int, shift: float,
        compress: sn.CompressVideo, expand: sn.ExpandVideo) -> sn.Model:
    """A text tower, a stack that turns its places in three axes, and what makes latents of videos and back."""
    width = stack.width
    cross = sn.CrossAttend("text", width=width, source=width, layers=stack.depth, place="middle", heads=stack.heads, bias=True, gate=None,
                           qk_norm="whole", eps=stack.eps)
    return sn.Model(
        encoders={"text": tower, "pixels": compress},
        align={"text": sn.Project(tower.width, width, hidden=width, act="gelu_tanh", bias=True)},
        fuse={"condition": sn.Condition(width), "prompt": sn.Prompt({"text": (1, *[0] * (words - 1))}, blank=True), "cross": cross},
        decoder=sn.Decoder(stack),
        heads={"video": head, "pixels": expand},
        objectives=(sn.FlowMatching("video", path=sn.Straight(shift=shift, told="noise")), sn.Reconstruct("video")))


def _spec(config: dict[str, Any]) -> sn.Model:
    c, v = filled(config["transformer"], DIT, DIT_FIXED), filled(config["vae"], VAE, VAE_FIXED)
    head, heads = c["attention_head_dim"], c["num_attention_heads"]
    sides = 2 * (head // 6)
    stack = sn.Stack(head * heads, c["num_layers"], heads, hidden=c["ffn_dim"], act="gelu_tanh", eps=c["eps"], norm_affine=False, qk_norm="whole",
                     rope_theta=1e4, rope_axes=((head - 2 * sides) // 2, sides // 2, sides // 2), rope_restart=True, adaln=head * heads,
                     adaln_shared=True, final_norm=False)
    flow = sn.VideoFlow(stack.width, frames=c["frames"], height=c["height"], wide=c["width"], patch=tuple(c["patch_size"]),
                        channels=c["in_channels"], eps=c["eps"])
    widths = tuple(v["base_dim"] * times for times in (1, *v["dim_mult"]))
    sizes = dict(latents=v["z_dim"], time=tuple(v["temperal_downsample"]), blocks=v["num_res_blocks"], mean=tuple(v["latents_mean"]),
                 std=tuple(v["latents_std"]))
    return wan(t5_tower(UMT5 | config["text_encoder"]), stack, flow, c["words"], (config.get("scheduler") or {}).get("flow_shift", 3.0),
               sn.CompressVideo(widths, **sizes), sn.ExpandVideo(widths, **sizes))


def _coder(spec: sn.Model, name: str) -> Rule:
    """A tensor of the autoencoder; on the way down blocks and what follows them stand in one row there."""
    there = name
    if name.startswith("encoders.pixels.down."):
        level, kind, rest = name.removeprefix("encoders.pixels.down.").split(".", 2)
        block, rest = (str(spec.encoders["pixels"].blocks), rest) if kind == "next_size" else rest.split(".", 1)
        rest = rest.replace("plane.", "resample.1.").replace("time.", "time_conv.")
        there = f"encoders.pixels.down_blocks.{int(level) * (spec.encoders['pixels'].blocks + 1) + int(block)}.{rest}"
    for mine, other in CODER:
        there = there.replace(mine, other)
    if ".look.attention." in there:
        part, suffix = there.split(".")[-2:]
        source, third = there.split(".look.")[0] + ".mid_block.attentions.0.", ("query", "key", "value").index(part) if part != "out" else -1
        if third < 0:
            return Rule((f"{source}proj.{suffix}",), lambda w: w.flatten(1) if w.dim() > 1 else w)
        return Rule((f"{source}to_qkv.{suffix}",), lambda w, third=third: (w.flatten(1) if w.dim() > 1 else w).chunk(3)[third])
    return Rule((there,), torch.flatten if name.endswith(".gamma") else None)


def _rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    stack, there = spec.decoder.read, "transformer.condition_embedder"
    half = stack.width // stack.heads // 2

    def turn(rows: torch.Tensor) -> torch.Tensor:  # theirs turn neighbours (0, 1), ours (0, E / 2): each head's rows in another order
        return rows.unflatten(0, (-1, half, 2)).transpose(1, 2).flatten(0, 2)

    out, both = renamed(t5_names(spec.encoders["text"], "encoders.text", "text_encoder.")), ("weight", "bias")
    out |= {f"{mine}.{suffix}": Rule((f"{other}.{suffix}",)) for suffix in both for mine, other in (
        ("fuse.condition.time.up", f"{there}.time_embedder.linear_1"), ("fuse.condition.time.down", f"{there}.time_embedder.linear_2"),
        ("decoder.read.shared.1", f"{there}.time_proj"), ("align.text.map.up", f"{there}.text_embedder.linear_1"),
        ("align.text.map.down", f"{there}.text_embedder.linear_2"))}
    for i in range(stack.depth):
        ours, cross, theirs = f"decoder.read.blocks.{i}", f"fuse.cross.layers.{i}", f"transformer.blocks.{i}"
        out |= {f"{ours}.{a}.{s}": Rule((f"{theirs}.{b}.{s}",)) for a, b in LAYER.items() for s in both}
        out |= {f"{cross}.{a}.{s}": Rule((f"{theirs}.{b}.{s}",)) for a, b in CROSS.items() for s in both}
        for part in ("query", "key", "value"):
            make = turn if part != "value" else None
            out |= {f"{ours}.attention.{part}.{s}": Rule((f"{theirs}.attn1.to_{part[0]}.{s}",), make) for s in both}
            if part != "value":
                out[f"{ours}.attention.{part}_norm.weight"] = Rule((f"{theirs}.attn1.norm_{part[0]}.weight",), turn)
                out[f"{cross}.attention.{part}_norm.weight"] = Rule((f"{theirs}.attn2.norm_{part[0]}.weight",))
        out[f"{ours}.table"] = Rule((f"{theirs}.scale_shift_table",), lambda table: table[0])
    out["heads.video.table"] = Rule(("transformer.scale_shift_table",), lambda table: table[0])
    out["heads.video.inside.weight"] = Rule(("transformer.patch_embedding.weight",), lambda w: w.flatten(1))
    out["heads.video.inside.bias"] = Rule(("transformer.patch_embedding.bias",))
    out |= {f"heads.video.out.{s}": Rule((f"transformer.proj_out.{s}",), torch.neg) for s in both}  # theirs points to the noise
    return out | {name: _coder(spec, name) for name in spec.build(device="meta").state_dict() if name.startswith(("encoders.p", "heads.p"))}


def wan_1b() -> sn.Model:
    """Wan 2.1 1.3B: 81 frames of 832 x 480 pixels; 5.7B parameters of tower besides."""
    return _spec({"text_encoder": {}, "transformer": {}, "vae": {}})


TOY = {"text_encoder": {"vocab_size": 40, "d_model": 48, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
       "transformer": {"num_attention_heads": 2, "attention_head_dim": 16, "text_dim": 48, "ffn_dim": 48, "num_layers": 2, "frames": 2, "height": 4,
                       "width": 6, "words": 6, "in_channels": 4},
       "vae": {"base_dim": 4, "z_dim": 4, "dim_mult": (1, 2, 2), "num_res_blocks": 1, "temperal_downsample": (False, True), "latents_mean": (),
               "latents_std": ()}}


def _prompted(samples: Sequence[int], alone: bool = False) -> Batch:
    """A toy batch of prompts and latents; sample ``i`` is always the same."""
    draws = [torch.Generator().manual_seed(number) for number in samples]
    words = torch.stack([torch.cat([torch.randint(2, 40, (4,), generator=draw), torch.tensor([1, 0])]) for draw in draws])
    value = torch.stack([torch.randn(4, 2, 4, 6, generator=draw) for draw in draws])
    none, rows = torch.full((len(value),), -1), torch.arange(len(value))
    pixels = torch.stack([torch.rand(3, 3, 8, 12, generator=draw) * 2 - 1 for draw in draws])
    return Batch(media={"text": words, "pixels": pixels}, written={"video": Written(value, rows, none, rows * 0, none, none)}, samples=len(value))


PUBLISHED["WanPipeline"] = Published(_spec, _rules, lambda name: "the same as shared" if "embed_tokens" in name else None)
register(Entry(name="wan", full=wan_1b, toy=lambda: _spec(TOY), batch=_prompted, parameters=7_226_799_667,
               source="Wan 2.1 T2V 1.3B, 2503.20314; Wan-AI/Wan2.1-T2V-1.3B-Diffusers, Apache-2.0"))
