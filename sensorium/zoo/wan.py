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
from sensorium.settings import NOTES, Keys
from sensorium.types import Batch, ConfigError, Written
from sensorium.zoo.pipeline import ASIDE, needed, part, words_keys
from sensorium.zoo.published import filled, renamed
from sensorium.zoo.registry import Entry, register
from sensorium.zoo.schedulers import flow_path
from sensorium.zoo.t5 import T5_KEYS, XXL, empty_text, t5_names, t5_tower

__all__ = ["wan", "wan_1b"]

UMT5 = {"vocab_size": 250_112, "d_ff": 1024, "num_layers": 8, "num_heads": 6}
SIZES = {"frames": 21, "height": 60, "width": 104, "words": 512}  # of latents and prompts: 81 frames of 832 x 480 pixels
DIT = {"patch_size": (1, 2, 2), "num_attention_heads": 40, "attention_head_dim": 128, "in_channels": 16, "out_channels": 16, "text_dim": 4096,
       "ffn_dim": 13_824, "num_layers": 40, "eps": 1e-6}
DIT_FIXED = {"cross_attn_norm": True, "qk_norm": "rms_norm_across_heads", "image_dim": None, "added_kv_proj_dim": None, "freq_dim": 256,
             "pos_embed_seq_len": None}
VAE = {"base_dim": 96, "z_dim": 16, "dim_mult": (1, 2, 4, 4), "num_res_blocks": 2, "temperal_downsample": (False, True, True),
       "latents_mean": (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497,
                        0.2503, -0.2921),
       "latents_std": (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251,
                       1.9160)}
VAE_FIXED = {"is_residual": False, "in_channels": 3, "out_channels": 3, "patch_size": None, "attn_scales": [], "decoder_base_dim": None}
WAN_1B = {"text_encoder": XXL | {"vocab_size": 256_384}, "transformer": {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}, "vae": {},
          "scheduler": {"_class_name": "UniPCMultistepScheduler", "flow_shift": 3.0, "prediction_type": "flow_prediction", "use_flow_sigmas": True}}
INDEX_KEYS = NOTES | Keys(
    built=("tokenizer", "scheduler"), harmless=ASIDE,
    only={"transformer": part("WanTransformer3DModel"), "vae": part("AutoencoderKLWan"), "boundary_ratio": None, "expand_timesteps": (False, None),
          "text_encoder": part("UMT5EncoderModel", library="transformers"), "transformer_2": ([None, None],)})
KEYS = {"model_index.json": INDEX_KEYS, "text_encoder/config.json": T5_KEYS, **words_keys("tokenizer"),
        "transformer/config.json": NOTES | Keys(built=tuple(DIT), only=DIT_FIXED, harmless={"rope_max_seq_len": "how far places are counted"}),
        "vae/config.json": NOTES | Keys(built=tuple(VAE), only=VAE_FIXED, harmless={"dropout": "none here", **dict.fromkeys(
            ("scale_factor_temporal", "scale_factor_spatial"), "temperal_downsample and dim_mult say it")})}
LAYER = {"attention.out": "attn1.to_out.0", "mlp.up": "ffn.net.0.proj", "mlp.down": "ffn.net.2"}
CROSS = {"norm": "norm2", "attention.query": "attn2.to_q", "attention.key": "attn2.to_k", "attention.value": "attn2.to_v",
         "attention.out": "attn2.to_out.0"}
CODER = (("encoders.pixels.mix.", "vae.quant_conv."), ("heads.pixels.mix.", "vae.post_quant_conv."), ("encoders.pixels.", "vae.encoder."),
         ("heads.pixels.", "vae.decoder."), ("coder.first.", "coder.conv_in."), ("coder.norm.", "coder.norm_out."),
         ("coder.last.", "coder.conv_out."), ("coder.before.", "coder.mid_block.resnets.0."), ("coder.after.", "coder.mid_block.resnets.1."),
         ("coder.look.norm.", "coder.mid_block.attentions.0.norm."), (".up.", ".up_blocks."), (".blocks.", ".resnets."),
         (".first_norm.", ".norm1."), (".second_norm.", ".norm2."), (".first.", ".conv1."), (".second.", ".conv2."), (".short.", ".conv_shortcut."),
         (".next_size.plane.", ".upsamplers.0.resample.1."), (".next_size.time.", ".upsamplers.0.time_conv."))


def wan(tower: sn.RelativeEncoder, stack: sn.Stack, head: sn.VideoFlow, empty: tuple[int, ...], path: sn.Straight,
        compress: sn.CompressVideo, expand: sn.ExpandVideo, steps: int = 1000) -> sn.Model:
    """A text tower, a stack that turns its places in three axes, and what makes latents of videos and back; ``steps``: how many the noise is told
    in."""
    width = stack.width
    cross = sn.CrossAttend("text", width=width, source=width, layers=stack.depth, place="middle", heads=stack.heads, bias=True, gate=None,
                           qk_norm="whole", eps=stack.eps)
    return sn.Model(
        encoders={"text": tower, "pixels": compress},
        align={"text": sn.Project(tower.width, width, hidden=width, act="gelu_tanh", bias=True)},
        fuse={"condition": sn.Condition(width, scale=float(steps)), "prompt": sn.Prompt({"text": empty}, blank=True), "cross": cross},
        decoder=sn.Decoder(stack),
        heads={"video": head, "pixels": expand},
        objectives=(sn.FlowMatching("video", path=path), sn.Reconstruct("video")))


def _spec(config: dict[str, Any]) -> sn.Model:
    needed(config, "text_encoder", "transformer", "vae", "scheduler")
    c, v = filled(config["transformer"], DIT | SIZES, DIT_FIXED), filled(config["vae"], VAE, VAE_FIXED)
    tower = t5_tower(UMT5 | config["text_encoder"] | {"model_type": "umt5"})
    if {c["in_channels"], c["out_channels"] or c["in_channels"]} != {v["z_dim"]} or c["text_dim"] != tower.width:
        raise ConfigError(f"transformer/config.json has in_channels {c['in_channels']}, out_channels {c['out_channels']} and text_dim "
                          f"{c['text_dim']}, wanted the {v['z_dim']} channels of the latents and the {tower.width} numbers of the text tower")
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
    return wan(tower, stack, flow, empty_text(config.get("tokenizer", {}), config["text_encoder"], c["words"]), flow_path(config["scheduler"], "Wan"),
               sn.CompressVideo(widths, **sizes), sn.ExpandVideo(widths, **sizes), config["scheduler"].get("num_train_timesteps", 1000))


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
        for kind in ("query", "key", "value"):
            make = turn if kind != "value" else None
            out |= {f"{ours}.attention.{kind}.{s}": Rule((f"{theirs}.attn1.to_{kind[0]}.{s}",), make) for s in both}
            if kind != "value":
                out[f"{ours}.attention.{kind}_norm.weight"] = Rule((f"{theirs}.attn1.norm_{kind[0]}.weight",), turn)
                out[f"{cross}.attention.{kind}_norm.weight"] = Rule((f"{theirs}.attn2.norm_{kind[0]}.weight",))
        out[f"{ours}.table"] = Rule((f"{theirs}.scale_shift_table",), lambda table: table[0])
    out["heads.video.table"] = Rule(("transformer.scale_shift_table",), lambda table: table[0])
    out["heads.video.inside.weight"] = Rule(("transformer.patch_embedding.weight",), lambda w: w.flatten(1))
    out["heads.video.inside.bias"] = Rule(("transformer.patch_embedding.bias",))
    out |= {f"heads.video.out.{s}": Rule((f"transformer.proj_out.{s}",), torch.neg) for s in both}  # theirs points to the noise
    return out | {name: _coder(spec, name) for name in spec.build(device="meta").state_dict() if name.startswith(("encoders.p", "heads.p"))}


def wan_1b() -> sn.Model:
    """Wan 2.1 1.3B: 81 frames of 832 x 480 pixels; 5.7B parameters of tower besides."""
    return _spec(WAN_1B)


TOY = {"text_encoder": {"vocab_size": 40, "d_model": 48, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
       "transformer": {"num_attention_heads": 2, "attention_head_dim": 16, "text_dim": 48, "ffn_dim": 48, "num_layers": 2, "frames": 2, "height": 4,
                       "width": 6, "words": 6, "in_channels": 4, "out_channels": 4},
       "vae": {"base_dim": 4, "z_dim": 4, "dim_mult": (1, 2, 2), "num_res_blocks": 1, "temperal_downsample": (False, True), "latents_mean": (),
               "latents_std": ()},
       "scheduler": WAN_1B["scheduler"]}


def _prompted(samples: Sequence[int], alone: bool = False) -> Batch:
    """A toy batch of prompts and latents; sample ``i`` is always the same."""
    draws = [torch.Generator().manual_seed(number) for number in samples]
    words = torch.stack([torch.cat([torch.randint(2, 40, (4,), generator=draw), torch.tensor([1, 0])]) for draw in draws])
    value = torch.stack([torch.randn(4, 2, 4, 6, generator=draw) for draw in draws])
    none, rows = torch.full((len(value),), -1), torch.arange(len(value))
    pixels = torch.stack([torch.rand(3, 3, 8, 12, generator=draw) * 2 - 1 for draw in draws])
    return Batch(media={"text": words, "pixels": pixels}, written={"video": Written(value, rows, none, rows * 0, none, none)}, samples=len(value))


PUBLISHED["WanPipeline"] = Published(_spec, _rules, lambda name: "the same as shared" if "embed_tokens" in name else None, keys=KEYS)
register(Entry(name="wan", full=wan_1b, toy=lambda: _spec(TOY), batch=_prompted, parameters=7_226_799_667,
               source="Wan 2.1 T2V 1.3B, 2503.20314; Wan-AI/Wan2.1-T2V-1.3B-Diffusers, Apache-2.0"))
