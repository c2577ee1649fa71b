"""Stable Diffusion against diffusers: one look, gradients, the autoencoder both ways, and a whole picture, from the folder that it saves itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers

import sensorium as sn
from sensorium.denoise import Solver, draw
from sensorium.studio import prompted
from sensorium.types import Written

from .reference import CLOSE, assert_gradients_by_rule, shaken

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False, "set_alpha_to_one": False,
            "steps_offset": 1}


def reference(linear: bool = False, predict: str = "epsilon") -> Any:
    text = transformers.CLIPTextModel(transformers.CLIPTextConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=8,
        eos_token_id=49, bos_token_id=48))
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16, 16), cross_attention_dim=16, attention_head_dim=(2, 4, 4) if linear else 2, norm_num_groups=4,
        layers_per_block=2, down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), use_linear_projection=linear)
    vae = diffusers.AutoencoderKL(block_out_channels=(8, 16), layers_per_block=2, norm_num_groups=4, latent_channels=4,
                                  down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
    return diffusers.StableDiffusionPipeline(
        vae=shaken(vae), text_encoder=shaken(text), tokenizer=None, unet=shaken(unet), safety_checker=None, feature_extractor=None,
        scheduler=diffusers.DDIMScheduler(**SCHEDULE, prediction_type=predict), requires_safety_checker=False)


def both(tmp_path: Path, **options: Any) -> tuple[Any, sn.ModelNet]:
    theirs = reference(**options)
    theirs.save_pretrained(tmp_path / "model")
    return theirs, sn.load(tmp_path / "model")


PROMPTS = torch.tensor([[48, 3, 4, 5, 49, 49, 49, 49], [48, 9, 8, 7, 6, 5, 4, 49]])
EMPTY = torch.tensor([[48, 49, 49, 49, 49, 49, 49, 49]])


def batch() -> sn.Batch:
    value = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    none, rows = torch.full((2,), -1), torch.arange(2)
    return sn.Batch(media={"text": PROMPTS}, written={"image": Written(value, rows, none, rows * 0, none, none)}, samples=2)


@pytest.mark.parametrize("linear", [False, True])
def test_one_look_and_its_gradients(tmp_path: Path, linear: bool) -> None:
    theirs, model = both(tmp_path, linear=linear)
    given, steps = batch(), torch.tensor([10, 951])
    x = given.written["image"].value_LCHW
    source = theirs.text_encoder(torch.cat([PROMPTS[:1], EMPTY]))[0]
    wanted = theirs.unet(x, steps, encoder_hidden_states=source).sample
    ours = model.write("image", x, steps / 1000, given.written["image"], torch.tensor([True, False]), prompt=model.prompts(given))
    torch.testing.assert_close(ours, wanted, **CLOSE)

    weigh = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    (wanted * weigh).mean().backward()
    (ours * weigh).mean().backward()
    assert assert_gradients_by_rule(model, "StableDiffusionPipeline", theirs, ("unet", "text_encoder")) > 150


def test_the_autoencoder_both_ways(tmp_path: Path) -> None:
    theirs, model = both(tmp_path)
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.no_grad():
        kept = theirs.vae.encode(pixels).latent_dist
        mean, spread = model.encoders["pixels"].moments(pixels)
        torch.testing.assert_close(mean, kept.mean, **CLOSE)
        torch.testing.assert_close(spread, kept.logvar, **CLOSE)
        latents = model.encoders["pixels"].latents(pixels)
        torch.testing.assert_close(latents, kept.mean * 0.18215, **CLOSE)
        torch.testing.assert_close(model.heads["pixels"](latents), theirs.vae.decode(latents / 0.18215).sample, **CLOSE)


@pytest.mark.parametrize("predict", ["epsilon", "v_prediction"])
def test_a_whole_picture_from_the_same_noise(tmp_path: Path, predict: str) -> None:
    theirs, model = both(tmp_path, predict=predict)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        source, empty = theirs.text_encoder(PROMPTS)[0], theirs.text_encoder(EMPTY)[0].expand(2, -1, -1)
        wanted = theirs(prompt_embeds=source, negative_prompt_embeds=empty, latents=noise, num_inference_steps=8, guidance_scale=5.0,
                        output_type="latent").images
        pixels = theirs.vae.decode(wanted / 0.18215).sample
    ours = draw(model, batch(), Solver("ddim", steps=8, guidance=5.0, interval=(0.0, 1.0)), noise_LCHW=noise)
    torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
    torch.testing.assert_close(model.heads["pixels"](ours), pixels, rtol=1e-3, atol=1e-3 * float(pixels.abs().max()))


def words(folder: Path) -> transformers.CLIPTokenizer:
    """A tokenizer of seven letters and three joined pairs, in the two older files."""
    letters = [letter + end for letter in "abcdefg" for end in ("", "</w>")]
    pairs = [("a", "b"), ("c", "d</w>"), ("ab", "c</w>")]
    names = [*letters, *("".join(pair) for pair in pairs)]
    names += [f"unused{i}" for i in range(48 - len(names))] + ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in pairs), encoding="utf-8")
    return transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8, pad_token="<|endoftext|>")


@pytest.mark.filterwarnings("ignore::sensorium.TruncationWarning")  # both cut the prompt at the toy's six places
def test_a_picture_from_words(tmp_path: Path) -> None:
    """The published folder with its tokenizer, in the older files: words in, the library's pixels out."""
    theirs, _ = both(tmp_path)
    theirs.tokenizer = words(tmp_path / "made")
    index = json.loads((tmp_path / "model" / "model_index.json").read_text(encoding="utf-8"))
    (tmp_path / "model" / "model_index.json").write_text(json.dumps({**index, "tokenizer": ["transformers", "CLIPTokenizer"]}), encoding="utf-8")
    shutil.copytree(tmp_path / "made", tmp_path / "model" / "tokenizer")
    model, prompts = sn.load(tmp_path / "model"), ["Abc  cd ab", "g", "abcdefg abcdefg abcdefg"]
    codecs = sn.Codecs.load(tmp_path / "model")
    asked = theirs.tokenizer(prompts, padding="max_length", max_length=8, truncation=True, return_tensors="pt").input_ids
    assert torch.equal(prompted(model, codecs, prompts, "image").media["text"], asked)

    noise = torch.stack([torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6, 7)])
    wanted = theirs(prompts, latents=noise, num_inference_steps=6, guidance_scale=4.0, output_type="pt").images
    drawn = sn.draw_images(model, [[prompt] for prompt in prompts], Solver("ddim", steps=6, guidance=4.0, interval=(0.0, 1.0), seed=5))
    for ours, one in zip(drawn, wanted, strict=True):
        torch.testing.assert_close(ours.source, one, rtol=0, atol=2e-3)
    reply = sn.respond(model, sn.Request([sn.user("abc")], want=("image",), steps=3, seed=4))
    assert reply.image.source.shape == (3, 16, 16) and reply.image.info["steps"] == 3
    with pytest.raises(sn.ModalityError, match="from text alone"):
        sn.draw_images(model, [[reply.image]])
    (tmp_path / "model" / "tokenizer" / "merges.txt").unlink()
    with pytest.raises(sn.CheckpointError, match="merges.txt"):
        sn.Codecs.load(tmp_path / "model")
