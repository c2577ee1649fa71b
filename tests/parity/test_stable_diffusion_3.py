"""Stable Diffusion 3 against diffusers: what the towers say, one look, gradients, and a whole picture, from the folder that it saves itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers

import sensorium as sn
from sensorium.denoise import Solver, draw
from sensorium.zoo.stable_diffusion_3 import _prompted

from .reference import CLOSE, assert_gradients_by_rule, shaken


def reference(newer: bool = False) -> Any:
    clip = {"vocab_size": 50, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 8,
            "eos_token_id": 49, "bos_token_id": 48}
    towers = [transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**clip, hidden_size=width, projection_dim=out))
              for width, out in ((16, 12), (20, 8))]
    t5 = transformers.T5EncoderModel(transformers.T5Config(
        vocab_size=40, d_model=48, d_kv=8, d_ff=64, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"))
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8, num_layers=3, attention_head_dim=8, num_attention_heads=4, joint_attention_dim=48, caption_projection_dim=32,
        pooled_projection_dim=20, pos_embed_max_size=12, in_channels=4, out_channels=4, qk_norm="rms_norm" if newer else None,
        dual_attention_layers=(0, 1) if newer else ())
    vae = diffusers.AutoencoderKL(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, latent_channels=4, scaling_factor=1.5305,
                                  shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False,
                                  down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
    return diffusers.StableDiffusion3Pipeline(
        transformer=shaken(transformer), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), vae=shaken(vae), tokenizer=None,
        text_encoder=shaken(towers[0]), text_encoder_2=shaken(towers[1], 1), tokenizer_2=None, text_encoder_3=shaken(t5), tokenizer_3=None)


def both(tmp_path: Path, **options: Any) -> tuple[Any, sn.ModelNet]:
    theirs = reference(**options)
    theirs.save_pretrained(tmp_path / "model")
    return theirs, sn.load(tmp_path / "model")


def said(theirs: Any, media: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and the pooled vector, as the pipeline joins them."""
    clips = [tower(media[name], output_hidden_states=True) for tower, name in ((theirs.text_encoder, "text"), (theirs.text_encoder_2, "text_2"))]
    wide = torch.cat([out.hidden_states[-2] for out in clips], dim=-1)
    wide = torch.nn.functional.pad(wide, (0, 48 - wide.shape[-1]))
    return torch.cat([wide, theirs.text_encoder_3(media["text_3"])[0]], dim=1), torch.cat([out.text_embeds for out in clips], dim=-1)


def batch(model: sn.ModelNet) -> sn.Batch:
    given = _prompted([0, 1])
    length = len(model.spec.fuse["prompt"].empty["text_3"])
    given.media["text_3"] = torch.nn.functional.pad(given.media["text_3"], (0, length - 6))
    return given


@pytest.mark.parametrize("newer", [False, True])
def test_one_look_and_its_gradients(tmp_path: Path, newer: bool) -> None:
    theirs, model = both(tmp_path, newer=newer)
    given, level = batch(model), torch.tensor([0.2, 0.95])
    source, whole = said(theirs, given.media)
    prompts = model.prompts(given)
    torch.testing.assert_close(prompts.x_RSD[:2], source, **CLOSE)
    torch.testing.assert_close(prompts.whole_RW[:2], whole, **CLOSE)
    x = given.written["image"].value_LCHW
    wanted = -theirs.transformer(x, encoder_hidden_states=source, pooled_projections=whole, timestep=level * 1000).sample
    ours = model.write("image", x, level, given.written["image"], torch.tensor([True, True]), prompt=prompts)
    torch.testing.assert_close(ours, wanted, **CLOSE)

    weigh = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    (wanted * weigh).mean().backward()
    (ours * weigh).mean().backward()
    parts = ("transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
    assert assert_gradients_by_rule(model, "StableDiffusion3Pipeline", theirs, parts) > 100


def test_a_whole_picture_from_the_same_noise(tmp_path: Path) -> None:
    theirs, model = both(tmp_path)
    given = batch(model)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        source, whole = said(theirs, given.media)
        empty, blank = said(theirs, {name: torch.tensor([ids, ids]) for name, ids in model.spec.fuse["prompt"].empty.items()})
        wanted = theirs(prompt_embeds=source, negative_prompt_embeds=empty, pooled_prompt_embeds=whole, negative_pooled_prompt_embeds=blank,
                        latents=noise, num_inference_steps=6, guidance_scale=4.0, output_type="latent", height=16, width=16).images
        pixels = theirs.vae.decode(wanted / 1.5305 + 0.0609).sample
    ours = draw(model, given, Solver("euler", steps=6, guidance=4.0, interval=(0.0, 1.0)), noise_LCHW=noise)
    torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
    torch.testing.assert_close(model.heads["pixels"](ours), pixels, rtol=1e-3, atol=1e-3 * float(pixels.abs().max()))
