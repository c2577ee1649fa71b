"""Wan 2.1 against diffusers: the tower, one look and its gradients, the causal autoencoder both ways, and a whole video from the same noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers

import sensorium as sn
from sensorium.denoise import Solver, draw
from sensorium.types import Written

from .reference import CLOSE, assert_gradients_by_rule, shaken

WORDS = torch.tensor([[5, 6, 7, 8, 1, *[0] * 507], [9, 4, 1, *[0] * 509]])


def reference() -> Any:
    tower = transformers.UMT5EncoderModel(transformers.UMT5Config(
        vocab_size=40, d_model=48, d_kv=8, d_ff=64, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"))
    transformer = diffusers.WanTransformer3DModel(num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, text_dim=48,
                                                  ffn_dim=48, num_layers=2)
    vae = diffusers.AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 2, 2], num_res_blocks=1, temperal_downsample=[False, True],
                                     latents_mean=[0.1, -0.2, 0.3, 0.4], latents_std=[1.5, 0.8, 1.1, 2.0])
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return diffusers.WanPipeline(tokenizer=None, text_encoder=shaken(tower), vae=shaken(vae), scheduler=scheduler, transformer=shaken(transformer))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, sn.ModelNet]:
    theirs, folder = reference(), tmp_path_factory.mktemp("wan")
    theirs.save_pretrained(folder)
    return theirs, sn.load(folder)


def said(theirs: Any, words: torch.Tensor) -> torch.Tensor:
    """The tower's features, zeros where padding was."""
    kept = words != 0
    return theirs.text_encoder(words, kept.long()).last_hidden_state * kept[..., None]


def batch() -> sn.Batch:
    value = torch.randn(2, 4, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    none, rows = torch.full((2,), -1), torch.arange(2)
    return sn.Batch(media={"text": WORDS}, written={"video": Written(value, rows, none, rows * 0, none, none)}, samples=2)


def test_one_look_and_its_gradients(both: tuple[Any, sn.ModelNet]) -> None:
    theirs, model = both
    given, level = batch(), torch.tensor([0.2, 0.95])
    x = given.written["video"].value_LCHW
    source = said(theirs, WORDS)
    wanted = -theirs.transformer(x, timestep=level * 1000, encoder_hidden_states=source).sample
    ours = model.write("video", x, level, given.written["video"], torch.tensor([True, True]), prompt=model.prompts(given))
    torch.testing.assert_close(ours, wanted, **CLOSE)

    weigh = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    (wanted * weigh).mean().backward()
    (ours * weigh).mean().backward()
    assert assert_gradients_by_rule(model, "WanPipeline", theirs, ("transformer", "text_encoder")) > 90


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_the_autoencoder_both_ways_is_causal(both: tuple[Any, sn.ModelNet], frames: int) -> None:
    theirs, model = both
    theirs.vae.register_to_config(scale_factor_temporal=2)
    video = torch.rand(1, 3, frames, 8, 12, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.no_grad():
        mean, spread = model.encoders["pixels"].moments(video)
        kept = theirs.vae.encode(video).latent_dist
        torch.testing.assert_close(mean, kept.mean, **CLOSE)
        torch.testing.assert_close(spread, kept.logvar, **CLOSE)
        decoded = model.heads["pixels"](model.encoders["pixels"].latents(video))
        torch.testing.assert_close(decoded, theirs.vae.decode(kept.mean).sample, **CLOSE)
        assert decoded.shape == video.shape
        changed = video.clone()
        changed[:, :, -1] = 0
        torch.testing.assert_close(model.encoders["pixels"].moments(changed)[0][:, :, :-1], mean[:, :, :-1])


SCHEDULERS = {
    "euler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    "unipc": diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)}  # as it is published


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_whole_video_from_the_same_noise(both: tuple[Any, sn.ModelNet], tmp_path: Path, kind: str) -> None:
    theirs, model = both
    theirs.scheduler = SCHEDULERS[kind]
    theirs.save_pretrained(tmp_path)
    model = sn.load(tmp_path)
    noise = torch.randn(2, 4, 3, 4, 6, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        known, unknown = said(theirs, WORDS), said(theirs, torch.tensor([model.spec.fuse["prompt"].empty["text"]] * 2))
        wanted = theirs(prompt_embeds=known, negative_prompt_embeds=unknown, latents=noise, num_inference_steps=5, guidance_scale=4.0,
                        output_type="latent", height=32, width=48, num_frames=9).frames
    ours = draw(model, batch(), Solver(steps=5, guidance=4.0, interval=(0.0, 1.0)), "video", noise_LCHW=noise)
    torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
