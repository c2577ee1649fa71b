"""Stable Diffusion: a text tower, a U-Net that looks at it while it denoises latents, and the autoencoder of the latents.

    prompt -> CLIP's text tower -----------\\
    noise -> [U-Net, told the time: look at the prompt] x steps -> latents -> autoencoder -> pixels

Source: 2112.10752; weights stable-diffusion-v1-5/stable-diffusion-v1-5 (CreativeML OpenRAIL-M) and its kin, in diffusers' folder of parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

import sensorium as sn
from sensorium.checkpoint import PUBLISHED, Published, Rule
from sensorium.settings import CONFIG, NOTES, Keys
from sensorium.types import Batch, ConfigError, Written
from sensorium.zoo.pipeline import ASIDE, needed, part, words_keys
from sensorium.zoo.published import CLIP_LAYER, activation, filled, renamed, stack_names
from sensorium.zoo.registry import Entry, register
from sensorium.zoo.schedulers import diffusion_path

__all__ = ["autoencoder_parts", "autoencoder_rules", "empty_prompt", "renamed_autoencoder", "stable_diffusion", "stable_diffusion_15"]

TEXT = {"vocab_size": 49_408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8,
        "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "eos_token_id": 49_407, "bos_token_id": 49_406,
        "projection_dim": 512}
UNET = {"sample_size": 64, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 1280, "attention_head_dim": 8, "transformer_layers_per_block": 1, "norm_num_groups": 32, "norm_eps": 1e-5,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)}
UNET_FIXED = {
    "act_fn": "silu", "center_input_sample": False, "flip_sin_to_cos": True, "freq_shift": 0, "dual_cross_attention": False,
    "resnet_time_scale_shift": "default", "time_embedding_type": "positional", "mid_block_scale_factor": 1, "downsample_padding": 1,
    "only_cross_attention": False, "mid_block_type": "UNetMidBlock2DCrossAttn", "resnet_out_scale_factor": 1.0, "conv_in_kernel": 3,
    "conv_out_kernel": 3, "attention_type": "default", "resnet_skip_time_act": False, "class_embeddings_concat": False, **dict.fromkeys((
        "class_embed_type", "addition_embed_type", "num_attention_heads", "encoder_hid_dim", "encoder_hid_dim_type", "num_class_embeds",
        "addition_time_embed_dim", "reverse_transformer_layers_per_block", "time_embedding_dim", "time_embedding_act_fn", "timestep_post_act",
        "time_cond_proj_dim", "projection_class_embeddings_input_dim", "cross_attention_norm", "mid_block_only_cross_attention"))}
VAE = {"block_out_channels": (64,), "layers_per_block": 1, "latent_channels": 4, "in_channels": 3, "norm_num_groups": 32,
       "scaling_factor": 0.18215, "shift_factor": None, "use_quant_conv": True, "use_post_quant_conv": True, "mid_block_add_attention": True}
SD_15 = {"text_encoder": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}, "unet": {"cross_attention_dim": 768},
         "vae": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
         "scheduler": {"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
                       "skip_prk_steps": True}}
PRECISION = "how precisely the published program computes"
TEXT_KEYS = CONFIG | Keys(
    built=("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "hidden_act",
           "layer_norm_eps"), only={"quantization_config": None}, harmless={"projection_dim": "of the projection, which a U-Net does not read"})
UNET_KEYS = NOTES | Keys(built=(*UNET, "up_block_types"), only=UNET_FIXED, harmless={
    "upcast_attention": PRECISION, "use_linear_projection": "the tensors say it by their shape", "dropout": "none here",
    "addition_embed_type_num_heads": "of addition_embed_type"})
VAE_KEYS = NOTES | Keys(built=(*VAE, "down_block_types", "up_block_types")) | Keys(
    only={"out_channels": 3, "in_channels": 3, "act_fn": "silu"}, harmless={
        "force_upcast": PRECISION, "sample_size": "of tiling", **dict.fromkeys(("latents_mean", "latents_std"), "this pipeline does not read them")})
INDEX_KEYS = NOTES | Keys(
    built=("tokenizer", "scheduler"), harmless=ASIDE,
    only={"unet": part("UNet2DConditionModel"), "vae": part("AutoencoderKL"), "text_encoder": part("CLIPTextModel", library="transformers")})
KEYS = {"model_index.json": INDEX_KEYS, "unet/config.json": UNET_KEYS, "vae/config.json": VAE_KEYS | Keys(
    harmless={"shift_factor": "this pipeline does not read it"}), "text_encoder/config.json": TEXT_KEYS, **words_keys("tokenizer")}
NAMES = (  # ours -> theirs, in this order
    ("decoder.middle_look.", "unet.mid_block.attentions.0."), ("decoder.middle.", "unet.mid_block.resnets."), ("decoder.", "unet."),
    ("heads.image.inside.", "unet.conv_in."), ("heads.image.norm.", "unet.conv_norm_out."), ("heads.image.out.", "unet.conv_out."),
    ("fuse.condition.time.up.", "unet.time_embedding.linear_1."), ("fuse.condition.time.down.", "unet.time_embedding.linear_2."),
    ("encoders.pixels.mix.", "vae.quant_conv."), ("heads.pixels.mix.", "vae.post_quant_conv."), ("encoders.pixels.", "vae.encoder."),
    ("heads.pixels.", "vae.decoder."), ("coder.first.", "coder.conv_in."), ("coder.norm.", "coder.conv_norm_out."),
    ("coder.last.", "coder.conv_out."), ("middle.before.", "mid_block.resnets.0."), ("middle.after.", "mid_block.resnets.1."),
    ("middle.look.norm.", "mid_block.attentions.0.group_norm."),
    ("middle.look.attention.", "mid_block.attentions.0."), (".down.", ".down_blocks."), (".up.", ".up_blocks."),
    (".blocks.", ".resnets."), (".looks.", ".attentions."), (".layers.", ".transformer_blocks."), (".inside.", ".proj_in."),
    (".outside.", ".proj_out."), (".self_norm.", ".norm1."), (".cross_norm.", ".norm2."), (".mlp_norm.", ".norm3."), (".first_norm.", ".norm1."),
    (".second_norm.", ".norm2."), (".first.", ".conv1."), (".second.", ".conv2."), (".condition.", ".time_emb_proj."), (".short.", ".conv_shortcut."),
    (".self_attention.", ".attn1."), (".cross_attention.", ".attn2."), (".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."),
    (".out.", ".to_out.0."), (".mlp.down_blocks.", ".ff.net.2."), (".mlp.up_blocks.", ".ff.net.0.proj."), (".mlp.gate.", ".ff.net.0.proj."))


def stable_diffusion(text: sn.TextEncoder, unet: sn.UNet, size: int, empty: Sequence[int], path: sn.Diffusion,
                     compress: sn.Compress, expand: sn.Expand, predict: str = "noise") -> sn.Model:
    """A text tower, a U-Net over latents of ``size`` x ``size``, and the two halves of their autoencoder."""
    return sn.Model(
        encoders={"text": text, "pixels": compress},
        fuse={"condition": sn.Condition(unet.condition, frequencies=unet.width, scale=float(path.steps)),
              "prompt": sn.Prompt({"text": tuple(empty)})},
        decoder=unet,
        heads={"image": sn.ConvFlow(unet.width, size=size, channels=compress.latents, predict=predict, groups=unet.groups, eps=unet.eps),
               "pixels": expand},
        objectives=(sn.Denoise(path=path), sn.Reconstruct()))


def autoencoder_parts(c: dict[str, Any]) -> tuple[sn.Compress, sn.Expand]:
    """The halves of a published autoencoder."""
    for key, built in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        if unknown := {*c.get(key, ())} - {built}:
            raise ConfigError(f"vae/config.json has {key} {', '.join(sorted(unknown))}; only {built} is built")
    if c["use_quant_conv"] != c["use_post_quant_conv"]:
        raise ConfigError(f"vae/config.json sets use_quant_conv to {c['use_quant_conv']} and use_post_quant_conv to {c['use_post_quant_conv']}; only "
                          "both or neither is built")
    sizes = dict(latents=c["latent_channels"], channels=c["in_channels"], blocks=c["layers_per_block"], groups=c["norm_num_groups"],
                 scale=c["scaling_factor"], shift=c["shift_factor"] or 0.0, look=c["mid_block_add_attention"], mixed=c["use_quant_conv"])
    return tuple(half(tuple(c["block_out_channels"]), **sizes) for half in (sn.Compress, sn.Expand))


def empty_prompt(marks: dict[str, int], tower: dict[str, Any], length: int | None = None) -> tuple[int, ...]:
    """Ids of a text that says nothing, as long as a prompt.

    Args:
        marks: of its tokenizer, as ``pipeline.read_pipeline`` gives them; where there is none, the tower's own settings say them.
        tower: settings of a CLIP tower.
        length: of a prompt; None is the tokenizer's, or the tower's.
    """
    end = tower["eos_token_id"] if tower["eos_token_id"] != 2 else tower["vocab_size"] - 1  # early files say 2 and mean the highest id
    end = marks.get("eos", end)
    first = marks.get("bos", tower["bos_token_id"] if tower["bos_token_id"] not in (0, 1) else end - 1)
    longest = tower["max_position_embeddings"]
    return (first, end, *[marks.get("pad", end)] * (min(length or marks.get("length", longest), longest) - 2))


def _unet(u: dict[str, Any], latents: int) -> sn.UNet:
    levels, file = len(u["block_out_channels"]), "unet/config.json"
    heads, depth = (u[k] if isinstance(u[k], list | tuple) else (u[k],) * levels for k in ("attention_head_dim", "transformer_layers_per_block"))
    if not len(u["down_block_types"]) == len(heads) == len(depth) == levels:
        raise ConfigError(f"{file} has {levels} block_out_channels, {len(u['down_block_types'])} down_block_types, {len(heads)} attention_head_dim "
                          f"and {len(depth)} transformer_layers_per_block; wanted one of each for each level")
    looks = tuple(n if kind == "CrossAttnDownBlock2D" else 0 for n, kind in zip(depth, u["down_block_types"], strict=True))
    built = {"CrossAttnDownBlock2D": "CrossAttnUpBlock2D", "DownBlock2D": "UpBlock2D"}
    if unknown := sorted({*u["down_block_types"]} - {*built}):
        raise ConfigError(f"{file} has down_block_types {', '.join(unknown)}; only {' and '.join(built)} are built")
    mirror = [built[kind] for kind in reversed(u["down_block_types"])]
    if list(u.get("up_block_types", mirror)) != mirror:
        raise ConfigError(f"{file} has up_block_types {u['up_block_types']}, wanted {mirror}: the way up has to mirror the way down")
    if not all(isinstance(u[key], int) for key in ("layers_per_block", "cross_attention_dim")) or {u["in_channels"], u["out_channels"]} != {latents}:
        raise ConfigError(f"{file} has layers_per_block {u['layers_per_block']}, cross_attention_dim {u['cross_attention_dim']}, in_channels "
                          f"{u['in_channels']} and out_channels {u['out_channels']}; wanted one number each, and the latents' {latents} channels")
    unet = sn.UNet(tuple(u["block_out_channels"]), looks=looks, heads=tuple(heads), source=u["cross_attention_dim"], blocks=u["layers_per_block"],
                   condition=4 * u["block_out_channels"][0], groups=u["norm_num_groups"], eps=u["norm_eps"])
    if unet.middle != depth[-1]:
        raise ConfigError(f"{file} has transformer_layers_per_block {list(depth)}, whose last number is the middle's; wanted {unet.middle} there, as "
                          "the last level that looks has")
    return unet


def _size(u: dict[str, Any]) -> int:
    """Side of the latents that are drawn."""
    size = u["sample_size"] or UNET["sample_size"]
    if not isinstance(size, int):
        raise ConfigError(f"unet/config.json has sample_size {size}, wanted one number: only square pictures are built")
    edition = str(u.get("_diffusers_version", "1.0")).split(".")
    return max(size, 64) if edition[:2] in (["0", str(n)] for n in range(9)) else size  # as the published pipeline takes those files


def _spec(config: dict[str, Any]) -> sn.Model:
    needed(config, "text_encoder", "unet", "vae", "scheduler")
    t, u = filled(config["text_encoder"], TEXT), filled(config["unet"], UNET, UNET_FIXED)
    v = filled(config["vae"], VAE) | {"shift_factor": None}  # the published pipeline does not read it
    path, predict = diffusion_path(config["scheduler"])
    empty = empty_prompt(config.get("tokenizer", {}), t)
    text = sn.TextEncoder(vocab=t["vocab_size"], context=t["max_position_embeddings"], width=t["hidden_size"], depth=t["num_hidden_layers"],
                          end=empty[1], heads=t["num_attention_heads"], hidden=t["intermediate_size"], act=activation(t["hidden_act"]),
                          eps=t["layer_norm_eps"])
    return stable_diffusion(text, _unet(u, v["latent_channels"]), _size(u), empty, path, *autoencoder_parts(v), predict)


def _there(name: str) -> str:
    """What the published file calls a tensor."""
    name = name.replace(".next_size.map.", ".upsamplers.0.conv." if ".up." in name else ".downsamplers.0.conv.")
    for mine, other in NAMES:
        name = name.replace(mine, other)
    return name


def _made(name: str) -> Callable[..., torch.Tensor] | None:
    """Gate and up projection are one matrix there; a linear layer may be a 1 x 1 convolution."""
    if ".mlp.up." in name or ".mlp.gate." in name:
        return lambda both: both.chunk(2)[".mlp.gate." in name]
    linear = "look" in name and name.endswith(("inside.weight", "outside.weight"))
    return (lambda weight: weight.flatten(1)) if linear else None


def renamed_autoencoder(name: str) -> str:
    """Early files have the attention of the autoencoder by other names."""
    if not name.startswith("vae.") or ".attentions." not in name:
        return name
    for old, new in ((".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")):
        name = name.replace(old, new)
    return name


def _renamed(name: str) -> str:
    """Later editions of the library leave "text_model" out."""
    return renamed_autoencoder(name.replace("text_encoder.text_model.", "text_encoder."))


def autoencoder_rules(spec: sn.Model) -> dict[str, Rule]:
    """Rules of both halves of an autoencoder."""
    names = spec.build(device="meta").state_dict()
    return {name: Rule((_there(name),)) for name in names if name.startswith(("encoders.pixels.", "heads.pixels."))}


def _rules(spec: sn.Model, config: dict[str, Any]) -> dict[str, Rule]:
    text, theirs = "encoders.text", "text_encoder"
    names = {f"{text}.{a}": f"{theirs}.embeddings.{b}_embedding.weight" for a, b in (("token.weight", "token"), ("position", "position"))}
    names |= {f"{text}.stack.norm.weight": f"{theirs}.final_layer_norm.weight", f"{text}.stack.norm.bias": f"{theirs}.final_layer_norm.bias"}
    names |= stack_names(f"{text}.stack", f"{theirs}.encoder.layers", spec.encoders["text"].depth, CLIP_LAYER)
    rest = [name for name in spec.build(device="meta").state_dict() if not name.startswith(f"{text}.")]
    return renamed(names) | {name: Rule((_there(name),), _made(name)) for name in rest}


def stable_diffusion_15() -> sn.Model:
    """Stable Diffusion 1.5: 860M parameters of U-Net, 123M of text tower, 84M of autoencoder."""
    return _spec(SD_15)


def _toy() -> sn.Model:
    return _spec({
        "text_encoder": {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                         "max_position_embeddings": 8, "eos_token_id": 49, "bos_token_id": 48},
        "unet": {"sample_size": 8, "block_out_channels": (8, 16), "cross_attention_dim": 16, "attention_head_dim": 2, "norm_num_groups": 4,
                 "layers_per_block": 1, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")},
        "vae": {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4},
        "scheduler": SD_15["scheduler"] | {"_class_name": "DDIMScheduler", "set_alpha_to_one": False}})


def _prompted(samples: Sequence[int], alone: bool = False) -> Batch:
    """A toy batch of prompts and latents; sample ``i`` is always the same."""
    draws = [torch.Generator().manual_seed(number) for number in samples]
    words = torch.stack([torch.cat([torch.tensor([48]), torch.randint(0, 48, (6,), generator=draw), torch.tensor([49])]) for draw in draws])
    value = torch.stack([torch.randn(4, 8, 8, generator=draw) for draw in draws])
    none, rows = torch.full((len(value),), -1), torch.arange(len(value))
    pixels = torch.stack([torch.rand(3, 16, 16, generator=draw) * 2 - 1 for draw in draws])
    return Batch(media={"text": words, "pixels": pixels}, written={"image": Written(value, rows, none, rows * 0, none, none)}, samples=len(value))


PUBLISHED["StableDiffusionPipeline"] = Published(
    _spec, _rules, lambda name: "counts 0, 1, 2, ..." if name.endswith("position_ids") else None,
    _renamed, keys=KEYS)
register(Entry(name="stable_diffusion", full=stable_diffusion_15, toy=_toy, batch=_prompted, parameters=1_066_235_307,
               source="Stable Diffusion 1.5, 2112.10752; stable-diffusion-v1-5/stable-diffusion-v1-5, CreativeML OpenRAIL-M"))
