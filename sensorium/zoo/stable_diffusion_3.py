"""Stable Diffusion 3: two streams, of three text towers' features and of latent patches, look at each other on a straight path from noise.

    prompt -> CLIP's towers, side by side; then T5's --\\
    noise -> patches ----------------------------------> [two streams that look at each other, told the time] x steps -> latents -> pixels

Source: 2403.03206; weights stabilityai/stable-diffusion-3-medium-diffusers and -3.5 (Stability Community License), in diffusers' layout.
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
from sensorium.zoo.published import CLIP_LAYER, activation, filled, renamed, stack_names
from sensorium.zoo.registry import Entry, register
from sensorium.zoo.schedulers import flow_path
from sensorium.zoo.stable_diffusion import TEXT, TEXT_KEYS, VAE, VAE_KEYS, autoencoder_parts, autoencoder_rules, empty_prompt, renamed_autoencoder
from sensorium.zoo.t5 import T5_KEYS, XXL, empty_text, t5_names, t5_tower

__all__ = ["stable_diffusion_3", "stable_diffusion_3_medium"]

MMDIT = {"sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 18, "attention_head_dim": 64,
         "num_attention_heads": 18, "joint_attention_dim": 4096, "caption_projection_dim": 1152, "pooled_projection_dim": 2048,
         "pos_embed_max_size": 96, "dual_attention_layers": (), "qk_norm": None}
MEDIUM = {
    "text_encoder": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768},
    "text_encoder_2": {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "hidden_act": "gelu",
                       "projection_dim": 1280},
    "text_encoder_3": XXL, "tokenizer_2": {"pad": 0},
    "transformer": {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 192},
    "vae": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 16, "scaling_factor": 1.5305,
            "shift_factor": 0.0609, "use_quant_conv": False, "use_post_quant_conv": False},
    "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}}
INDEX_KEYS = NOTES | Keys(
    built=("tokenizer", "tokenizer_2", "tokenizer_3", "scheduler"), harmless=ASIDE,
    only={"transformer": part("SD3Transformer2DModel"), "vae": part("AutoencoderKL"),
          "text_encoder": part("CLIPTextModelWithProjection", library="transformers"),
          "text_encoder_2": part("CLIPTextModelWithProjection", library="transformers"),
          "text_encoder_3": part("T5EncoderModel", library="transformers")})
KEYS = {"model_index.json": INDEX_KEYS, "transformer/config.json": NOTES | Keys(built=tuple(MMDIT)), "vae/config.json": VAE_KEYS,
        **{f"{name}/config.json": TEXT_KEYS | Keys(built=("projection_dim",)) for name in ("text_encoder", "text_encoder_2")},
        "text_encoder_3/config.json": T5_KEYS, **words_keys("tokenizer", "tokenizer_2", "tokenizer_3")}
WORDS = {"text": 77, "text_2": 77, "text_3": 256}  # tokens that each tower reads
BOTH = {"attention.query": ("attn.to_q", "attn.add_q_proj"), "attention.key": ("attn.to_k", "attn.add_k_proj"),
        "attention.value": ("attn.to_v", "attn.add_v_proj"), "attention.out": ("attn.to_out.0", "attn.to_add_out"),
        "mlp.up": ("ff.net.0.proj", "ff_context.net.0.proj"), "mlp.down": ("ff.net.2", "ff_context.net.2"),
        "modulate": ("norm1.linear", "norm1_context.linear")}
NORMS = {"attention.query_norm": ("attn.norm_q", "attn.norm_added_q"), "attention.key_norm": ("attn.norm_k", "attn.norm_added_k")}


def stable_diffusion_3(towers: dict[str, Any], stream: sn.DualStream, head: sn.Flow, prompt: sn.Prompt, whole: int, path: sn.Straight,
                       compress: sn.Compress, expand: sn.Expand, steps: int = 1000) -> sn.Model:
    """Towers by name, the two streams, and how latents of their patches come in and out; ``steps``: how many the noise is told in."""
    return sn.Model(
        encoders={**towers, "pixels": compress},
        fuse={"condition": sn.Condition(stream.width, whole=whole, scale=float(steps)), "prompt": prompt},
        decoder=stream,
        heads={"image": head, "pixels": expand},
        objectives=(sn.FlowMatching(path=path), sn.Reconstruct()))


def _clip(c: dict[str, Any]) -> sn.TextEncoder:
    end = c["eos_token_id"] if c["eos_token_id"] != 2 else c["vocab_size"] - 1
    return sn.TextEncoder(vocab=c["vocab_size"], context=c["max_position_embeddings"], width=c["hidden_size"], depth=c["num_hidden_layers"], end=end,
                          heads=c["num_attention_heads"], hidden=c["intermediate_size"], act=activation(c["hidden_act"]), eps=c["layer_norm_eps"],
                          early=True, whole=c["projection_dim"])


def _check(m: dict[str, Any], latents: int) -> None:
    """Refuse transformers that are not built."""
    width, alone = m["attention_head_dim"] * m["num_attention_heads"], list(m["dual_attention_layers"])
    problems = [] if m["qk_norm"] in (None, "rms_norm") else [f"qk_norm {m['qk_norm']!r}, wanted null or 'rms_norm'"]
    problems += [] if alone == list(range(len(alone))) else [f"dual_attention_layers {alone}, wanted the first so many"]
    problems += [] if m["caption_projection_dim"] == width else [f"caption_projection_dim {m['caption_projection_dim']}, wanted {width}"]
    problems += [f"{key} {m[key]}, wanted {latents}, as the latents have" for key in ("in_channels", "out_channels") if m[key] not in (latents, None)]
    problems += [] if isinstance(m["sample_size"], int) else [f"sample_size {m['sample_size']}, wanted one number"]
    if problems:
        raise ConfigError(f"transformer/config.json has {'; '.join(problems)}; nothing else is built")


def _spec(config: dict[str, Any]) -> sn.Model:
    needed(config, "text_encoder", "text_encoder_2", "text_encoder_3", "transformer", "vae", "scheduler")
    clips = {name: filled(config[name], TEXT) for name in ("text_encoder", "text_encoder_2")}
    m, v = filled(config["transformer"], MMDIT), filled(config["vae"], VAE)
    _check(m, v["latent_channels"])
    path = flow_path(config["scheduler"], "Stable Diffusion 3", (m["sample_size"] // m["patch_size"]) ** 2)
    towers = {name.replace("text_encoder", "text"): _clip(c) for name, c in clips.items()}
    towers["text_3"] = t5_tower(config["text_encoder_3"] | {"model_type": "t5"}, seen=True)
    width = m["attention_head_dim"] * m["num_attention_heads"]
    stream = sn.DualStream(width, m["num_layers"], m["num_attention_heads"], source=m["joint_attention_dim"], qk_norm=m["qk_norm"] == "rms_norm",
                           alone=len(m["dual_attention_layers"]))
    head = sn.Flow(width, size=m["sample_size"], patch=m["patch_size"], channels=m["in_channels"], predict="velocity", condition=width,
                   table=m["pos_embed_max_size"])
    marks = [config.get(name, {}) for name in ("tokenizer", "tokenizer_2", "tokenizer_3")]
    empty = {name.replace("text_encoder", "text"): empty_prompt(mark, clips[name], marks[0].get("length"))  # the first tokenizer's counts for both
             for name, mark in zip(clips, marks, strict=False)}
    empty["text_3"] = empty_text(marks[2], config["text_encoder_3"], config.get("words", WORDS)["text_3"])
    return stable_diffusion_3(towers, stream, head, sn.Prompt(empty, beside=("text", "text_2"), width=m["joint_attention_dim"]),
                              m["pooled_projection_dim"], path, *autoencoder_parts(v), config["scheduler"].get("num_train_timesteps", 1000))


def _rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    names, there = {}, "transformer.transformer_blocks"
    for mine, other in (("text", "text_encoder"), ("text_2", "text_encoder_2")):
        ours, theirs, depth = f"encoders.{mine}", f"{other}.text_model", spec.encoders[mine].depth
        names |= {f"{ours}.token.weight": f"{theirs}.embeddings.token_embedding.weight", f"{ours}.whole.weight": f"{other}.text_projection.weight",
                  f"{ours}.position": f"{theirs}.embeddings.position_embedding.weight"}
        names |= {f"{ours}.stack.norm.{suffix}": f"{theirs}.final_layer_norm.{suffix}" for suffix in ("weight", "bias")}
        names |= stack_names(f"{ours}.stack", f"{theirs}.encoder.layers", depth, CLIP_LAYER)
    names |= t5_names(spec.encoders["text_3"], "encoders.text_3", "text_encoder_3.")
    stream = spec.decoder
    parts = BOTH | (NORMS if stream.qk_norm else {})
    for i in range(stream.depth):
        for number, mine in ((0, f"decoder.medium.{i}"), (1, f"decoder.prompt.{i}" if i < stream.depth - 1 else "decoder.last")):
            for a, b in parts.items():
                if mine == "decoder.last" and a.startswith(("attention.out", "attention.query", "mlp.")):
                    continue
                names |= {f"{mine}.{a}.{suffix}": f"{there}.{i}.{b[number]}.{suffix}"
                          for suffix in (("weight",) if "norm" in a else ("weight", "bias"))}
    for mine, other in (("decoder.inside", "context_embedder"), ("heads.image.modulate", "norm_out.linear"), ("heads.image.out", "proj_out"),
                        ("fuse.condition.time.up", "time_text_embed.timestep_embedder.linear_1"),
                        ("fuse.condition.time.down", "time_text_embed.timestep_embedder.linear_2"),
                        ("fuse.condition.whole.up", "time_text_embed.text_embedder.linear_1"),
                        ("fuse.condition.whole.down", "time_text_embed.text_embedder.linear_2")):
        names |= {f"{mine}.{suffix}": f"transformer.{other}.{suffix}" for suffix in ("weight", "bias")}
    out = renamed(names)
    for mine in ("decoder.last.modulate", "heads.image.modulate"):
        out |= {f"{mine}.{suffix}": Rule(out[f"{mine}.{suffix}"].source, lambda both: torch.cat(both.chunk(2)[::-1]))  # theirs has scale before shift
                for suffix in ("weight", "bias")}
    for suffix in ("weight", "bias"):
        out[f"heads.image.out.{suffix}"] = Rule(out[f"heads.image.out.{suffix}"].source, torch.neg)  # theirs points to the noise
        for i in range(stream.alone):  # one matrix makes what modulates both looks
            both = out[f"decoder.medium.{i}.modulate.{suffix}"].source
            out[f"decoder.medium.{i}.modulate.{suffix}"] = Rule(both, lambda nine: nine[: len(nine) // 3 * 2])
            out[f"decoder.alone.{i}.modulate.{suffix}"] = Rule(both, lambda nine: nine[len(nine) // 3 * 2 :])
            out |= {f"decoder.alone.{i}.{a}.{suffix}": Rule((f"{there}.{i}.{b[0].replace('attn.', 'attn2.')}.{suffix}",))
                    for a, b in parts.items() if a.startswith("attention") and ("norm" not in a or suffix == "weight")}
    out["heads.image.inside.weight"] = Rule(("transformer.pos_embed.proj.weight",), lambda w: w.permute(0, 2, 3, 1).flatten(1))
    out["heads.image.inside.bias"] = Rule(("transformer.pos_embed.proj.bias",))
    out["heads.image.position"] = Rule(("transformer.pos_embed.pos_embed",), lambda table: table[0])
    return out | autoencoder_rules(spec)


def stable_diffusion_3_medium() -> sn.Model:
    """Stable Diffusion 3 medium: 2.0B parameters of streams, 5.6B of towers."""
    return _spec(MEDIUM)


def _toy() -> sn.Model:
    clip = {"vocab_size": 50, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 8,
            "eos_token_id": 49, "bos_token_id": 48}
    return _spec({
        "text_encoder": clip | {"hidden_size": 16, "projection_dim": 12}, "text_encoder_2": clip | {"hidden_size": 20, "projection_dim": 8},
        "text_encoder_3": {"vocab_size": 40, "d_model": 48, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}, "words": {"text_3": 6},
        "transformer": {"sample_size": 8, "num_layers": 2, "attention_head_dim": 8, "num_attention_heads": 4, "joint_attention_dim": 48,
                        "caption_projection_dim": 32, "pooled_projection_dim": 20, "pos_embed_max_size": 12, "in_channels": 4, "out_channels": 4},
        "vae": MEDIUM["vae"] | {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4, "latent_channels": 4},
        "scheduler": MEDIUM["scheduler"]})


def _prompted(samples: Sequence[int], alone: bool = False) -> Batch:
    """A toy batch of prompts and latents; sample ``i`` is always the same."""
    draws = [torch.Generator().manual_seed(number) for number in samples]
    words = torch.stack([torch.cat([torch.tensor([48]), torch.randint(0, 48, (6,), generator=draw), torch.tensor([49])]) for draw in draws])
    more = torch.stack([torch.cat([torch.randint(2, 40, (5,), generator=draw), torch.tensor([1])]) for draw in draws])
    value = torch.stack([torch.randn(4, 8, 8, generator=draw) for draw in draws])
    none, rows = torch.full((len(value),), -1), torch.arange(len(value))
    pixels = torch.stack([torch.rand(3, 16, 16, generator=draw) * 2 - 1 for draw in draws])
    return Batch(media={"text": words, "text_2": words, "text_3": more, "pixels": pixels}, samples=len(value),
                 written={"image": Written(value, rows, none, torch.zeros_like(rows), none, none)})


PUBLISHED["StableDiffusion3Pipeline"] = Published(
    _spec, _rules, lambda name: "what the last layer's prompt would ask for" if "added_q" in name or "add_q_proj" in name else
    "counts 0, 1, 2, ..." if name.endswith("position_ids") else "the same as shared" if "embed_tokens" in name else None,
    renamed_autoencoder, keys=KEYS)
register(Entry(name="stable_diffusion_3", full=stable_diffusion_3_medium, toy=_toy, batch=_prompted, parameters=7_692_768_483, unread=2_360_832,
               source="Stable Diffusion 3 medium, 2403.03206; stabilityai/stable-diffusion-3-medium-diffusers, Stability Community License"))
