"""Janus against transformers: words and codes scored, gradients, pictures to codes and back, and a picture written code by code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import sensorium as sn
from sensorium.codes import draw_codes
from sensorium.generate import Sampling
from sensorium.layers.cache import Cache
from sensorium.types import Layout, Written

from .reference import CLOSE, saved, shaken

PROMPT = torch.tensor([[1, 9, 8, 7, 5], [1, 12, 33, 20, 5]])  # 5 calls for a picture


def reference() -> Any:
    text = transformers.LlamaConfig(vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                                    num_key_value_heads=2, tie_word_embeddings=False, pad_token_id=0, bos_token_id=1)
    vision = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 4, "projection_dim": 32,
              "num_image_tokens": 16}
    codes = {"embed_dim": 4, "num_embeddings": 20, "latent_channels": 8, "base_channels": 32, "channel_multiplier": [1, 2, 2], "num_res_blocks": 1,
             "projection_dim": 32, "num_patches": 4, "image_token_embed_dim": 32}
    config = transformers.JanusConfig(text_config=text.to_dict(), vision_config=vision, vq_config=codes, image_token_id=4, pad_token_id=0,
                                      tie_word_embeddings=False)
    config.kept = [1, 5]
    return shaken(transformers.JanusForConditionalGeneration(config))


@pytest.fixture
def both(tmp_path: Path) -> tuple[Any, sn.ModelNet]:
    theirs = reference()
    return theirs, sn.load(saved(theirs, tmp_path / "model"))


def batch(codes: torch.Tensor) -> sn.Batch:
    rows, length = torch.arange(len(PROMPT)), PROMPT.shape[1]
    place = torch.arange(length).expand_as(PROMPT)
    written = Written(codes.view(-1, 1, 4, 4), rows, rows * 0, rows * 0 + length, rows * length + length - 1, rows * 0 - 1)
    return sn.Batch(token_BT=PROMPT, media_BT=PROMPT * 0, layout=Layout(place * 0, place, place * 0), written={"image": written}, samples=2)


def test_codes_are_scored_alike(both: tuple[Any, sn.ModelNet], tmp_path: Path) -> None:
    theirs, model = both
    codes = torch.randint(0, 20, (2, 16), generator=torch.Generator().manual_seed(0))
    inner = theirs.model
    seen = torch.cat([inner.get_input_embeddings()(PROMPT), theirs.prepare_embeddings_for_image_generation(codes[:, :-1])], dim=1)
    wanted = inner.generation_head(inner.language_model(inputs_embeds=seen).last_hidden_state[:, PROMPT.shape[1] - 1 :])
    given, cache = batch(codes), Cache()
    state = model.read(given, cache)
    ours = model.write_codes("image", codes, given.written["image"], cache.rows(given.written["image"].row_L), state)
    torch.testing.assert_close(ours, wanted, **CLOSE)
    torch.testing.assert_close(model.losses(given)["next_code"], torch.nn.functional.cross_entropy(wanted.flatten(0, 1), codes.flatten()), **CLOSE)


def test_pictures_become_codes_and_come_back(both: tuple[Any, sn.ModelNet]) -> None:
    theirs, model = both
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.no_grad():
        wanted = theirs.model.vqmodel.encode(pixels)
        mean, _ = model.encoders["pixels"].moments(pixels)
        codes = model.heads["image"].nearest(mean)
        assert torch.equal(codes.flatten(), wanted.image_tokens)
        decoded = model.heads["pixels"](model.heads["image"].latents(codes))
        torch.testing.assert_close(decoded, theirs.model.vqmodel.decode(codes), **CLOSE)


def test_pictures_are_read(both: tuple[Any, sn.ModelNet], tmp_path: Path) -> None:
    theirs, model = both
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1
    words, answer = [1, 9], [10, 11, 12]
    packer = sn.Packer(places={"image": 16}, row=64, end=2)
    given = packer.pack([packer.segment([sn.Arrays("text", words), sn.Arrays("image", pixels[0]), sn.Arrays("text", answer, target=True)])])
    ids = torch.tensor([[*words, *[4] * 16, *answer, 2]])
    labels = torch.tensor([[*[-100] * 18, *answer, 2]])
    out = theirs(input_ids=ids, pixel_values=pixels, labels=labels)
    loss = model.losses(given)["next_token"]
    torch.testing.assert_close(loss, out.loss, **CLOSE)


@pytest.mark.parametrize("guidance", [1.5, 4.0])
def test_a_picture_is_written_code_by_code(both: tuple[Any, sn.ModelNet], guidance: float) -> None:
    theirs, model = both
    config = transformers.GenerationConfig(do_sample=False, bos_token_id=1, pad_token_id=0, eos_token_id=2, max_length=40)
    config.generation_kwargs = {"boi_token_id": 5}
    config.guidance_scale = guidance
    wanted = theirs.generate(PROMPT, attention_mask=torch.ones_like(PROMPT), generation_config=config, generation_mode="image")
    assert torch.equal(draw_codes(model, batch(torch.zeros(2, 16, dtype=torch.int64)), Sampling(), guidance), wanted)
