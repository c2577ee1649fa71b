"""LLaVA-NeXT against transformers: pictures of any shape in tiles, scores, loss, gradients, generation, prepared inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image as Pillow

import sensorium as sn

from .reference import CLOSE, assert_same_answers, assert_same_gradients, assert_same_scores, published, saved, shaken

IMAGE, END = 59, 3
GRIDS = [[16, 32], [32, 16], [32, 32], [48, 16], [16, 48]]
CODEC = sn.AnyresCodec(sn.VisionCodec(size=16, fit="squash"), grids=tuple(map(tuple, GRIDS)), side=2)
PACKER = sn.Packer(places={"image": 4}, row=160, end=END)


def reference(window: int | None = None) -> Any:
    text = transformers.MistralConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                                      vocab_size=60, sliding_window=window, pad_token_id=0, bos_token_id=1, eos_token_id=END)
    vision = transformers.CLIPVisionConfig(hidden_size=24, intermediate_size=96, num_hidden_layers=3, num_attention_heads=2, image_size=16,
                                           patch_size=8)
    return shaken(transformers.LlavaNextForConditionalGeneration(transformers.LlavaNextConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE, image_grid_pinpoints=GRIDS, tie_word_embeddings=False)))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def seen(values: np.ndarray) -> sn.Arrays:
    return CODEC.encode(sn.Image(torch.from_numpy(values).permute(2, 0, 1).float() / 255))


SAMPLES = [([1, 12], (20, 45), [25, 26], [40, 41]), ([1], (50, 21), [20, 21, 22], [30, 31, 32, 33]), ([1, 9], (31, 33), [27], [44])]


def parts_of(sample: tuple) -> list[sn.Arrays]:
    before, shape, ask, answer = sample
    return [sn.Arrays("text", before), seen(picture(*shape)), sn.Arrays("text", ask), sn.Arrays("text", answer, target=True)]


def their_inputs(sample: tuple, answer: bool = True) -> dict[str, torch.Tensor]:
    before, shape, ask, said = sample
    arrays = seen(picture(*shape))
    ids = [*before, *[IMAGE] * len(arrays.pick), *ask]
    labels = [-100] * len(ids) + [*said, END]
    ids = torch.tensor([[*ids, *(([*said, END]) if answer else [])]])
    out = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": arrays.value[None], "image_sizes": torch.tensor([shape])}
    return out | ({"labels": torch.tensor([labels])} if answer else {})


@pytest.mark.parametrize("window", [None, 9])
def test_forward_and_backward(window: int | None, tmp_path: Path) -> None:
    theirs, report = reference(window), sn.Coverage()
    model = sn.load(saved(theirs, tmp_path / "model"), report=report)
    assert set(report.ignored.values()) == {"behind the picture layer that is read"}
    batch = PACKER.pack([PACKER.segment(parts_of(sample)) for sample in SAMPLES])
    assert len(batch.token_BT) == 1
    assert_same_scores(model, theirs, batch, [their_inputs(sample) for sample in SAMPLES])
    assert_same_gradients(model, theirs, tmp_path / "gradients")


def test_generation(tmp_path: Path) -> None:
    theirs = reference()
    model = sn.load(saved(theirs, tmp_path))
    batch = PACKER.pack([PACKER.segment(parts_of(sample)[:-1]) for sample in SAMPLES], alone=True)
    given = [their_inputs(sample, answer=False) for sample in SAMPLES]
    assert_same_answers(model, theirs, batch, given, END, 10)


@pytest.mark.parametrize("size", [(20, 45), (50, 21), (31, 33), (16, 16), (7, 90), (200, 100), (64, 64)])
def test_prepared_inputs(size: tuple[int, int]) -> None:
    """The tiles, and how many places they take, of pictures of many shapes."""
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    values = picture(*size)
    pictures = LlavaNextImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, image_mean=[0.5] * 3,
                                          image_std=[0.5] * 3, image_grid_pinpoints=GRIDS)
    wanted = pictures(Pillow.fromarray(values), return_tensors="pt")
    ours = seen(values)
    torch.testing.assert_close(ours.value, wanted.pixel_values[0], **CLOSE)
    features = torch.arange(len(ours.value) * 4.0).view(-1, 4, 1)
    packed, _ = reference().model.pack_image_features([features], wanted.image_sizes, "default", image_newline=torch.tensor([-1.0]))
    assert ours.pick.tolist() == torch.cat(list(packed)).flatten().int().tolist()


def test_the_codec_is_as_the_files_say(tmp_path: Path) -> None:
    """From config.json and preprocessor_config.json; another way to choose features than the published one is refused."""
    folder = published(reference(), tmp_path, dict(size={"shortest_edge": 16}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3))
    assert sn.Codecs.load(folder).image == CODEC
    text = (folder / "config.json").read_text().replace('"vision_feature_select_strategy": "default"', '"vision_feature_select_strategy": "full"')
    (folder / "config.json").write_text(text)
    with pytest.raises(sn.ConfigError, match="vision_feature_select_strategy"):
        sn.load(folder)
