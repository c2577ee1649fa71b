"""IDEFICS against transformers: scores, loss, gradients, generation, who sees which picture, and what its processor makes of a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from PIL import Image as Pillow
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil
from transformers.models.idefics.processing_idefics import image_attention_mask_for_packed_input_ids, incremental_to_binary_attention_mask

import sensorium as sn
from sensorium.checkpoint import PUBLISHED
from sensorium.desk import Desk
from sensorium.zoo.idefics import idefics_9b

from .reference import assert_same_answers, assert_same_generation, assert_same_gradients, assert_same_scores, saved, shaken

IMAGE, END = 59, 3
PACKER = sn.Packer(places={"image": 0}, row=64, end=END)


def reference(gates: str = "vector", norms: bool = True, resampler: bool = True) -> Any:
    vision = dict(embed_dim=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8)
    seen = dict(use_resampler=resampler, resampler_n_latents=3, resampler_depth=2, resampler_n_heads=2, resampler_head_dim=8,
                qk_layer_norms_perceiver=norms)
    config = transformers.IdeficsConfig(
        vocab_size=57, additional_vocab_size=3, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4, alpha_type=gates,
        cross_layer_interval=2, qk_layer_norms=norms, use_resampler=resampler, vision_config=vision, perceiver_config=seen, eos_token_id=END,
        pad_token_id=0, bos_token_id=1, freeze_text_layers=False, freeze_vision_layers=False, attn_implementation="eager")
    model = shaken(transformers.IdeficsForVisionText2Text(config))
    model.loss_function = _loss  # its own takes the scores of the words added for those of the next place
    return model


def _loss(logits: torch.Tensor, labels: torch.Tensor, vocab_size: int, **ignored: Any) -> torch.Tensor:
    return ForCausalLMLoss(logits, labels, logits.shape[-1])


def samples() -> list[list[sn.Arrays]]:
    """One picture after a word; two of them with words between; none at all."""
    generator = torch.Generator().manual_seed(3)

    def picture() -> sn.Arrays:
        return sn.Arrays("image", torch.randn(3, 16, 16, generator=generator))

    def text(*ids: int, target: bool = False) -> sn.Arrays:
        return sn.Arrays("text", list(ids), target=target)

    return [[text(1, 20), picture(), text(IMAGE, 21, 22), text(30, 31, 32, target=True)],
            [text(1), picture(), text(IMAGE, 25), picture(), text(IMAGE, 26, 27), text(40, 41, target=True)],
            [text(1, 12, 13), text(50, 51, target=True)]]


def their_inputs(parts: list[sn.Arrays], answer: bool = True) -> dict[str, torch.Tensor]:
    ids, labels = [], []
    for part in parts:
        if part.modality == "text" and (answer or not part.target):
            more = [*part.value, *([END] if part.target else [])]
            ids += more
            labels += more if part.target else [-100] * len(more)
    pictures = [part.value for part in parts if part.modality == "image"]
    ids = torch.tensor([ids])
    seen, count = (ids == IMAGE).cumsum(-1) - 1, max(len(pictures), 1)
    mask = torch.nn.functional.one_hot(seen.clamp(min=0), count) * (seen >= 0)[..., None]
    pixels = torch.stack(pictures)[None] if pictures else torch.zeros(1, 1, 3, 16, 16)
    out = {"input_ids": ids, "pixel_values": pixels, "attention_mask": torch.ones_like(ids), "image_attention_mask": mask}
    return out | ({"labels": torch.tensor([labels])} if answer else {})


@pytest.mark.parametrize("gates, norms, resampler", [("vector", True, True), ("float", False, True), ("float", True, False)])
def test_forward_and_backward(gates: str, norms: bool, resampler: bool, tmp_path: Path) -> None:
    theirs = reference(gates, norms, resampler)
    report = sn.Coverage()
    model = sn.load(saved(theirs, tmp_path / "model"), report=report)
    assert set(report.ignored.values()) <= {"of the tower's first place alone, which is not read", "counts 0, 1, 2, ..."}
    batch = PACKER.pack([PACKER.segment(parts) for parts in samples()])  # all samples share a row
    assert len(batch.token_BT) == 1
    assert_same_scores(model, theirs, batch, [their_inputs(parts) for parts in samples()])
    assert_same_gradients(model, theirs, tmp_path / "gradients")


def test_generation(tmp_path: Path) -> None:
    assert_same_generation(reference(), tmp_path, PACKER, samples(), their_inputs, END)


def test_a_text_alone(tmp_path: Path) -> None:
    """A batch without any picture: the layers between still have their say, as they do beside a batch that has some."""
    theirs, text = reference(), samples()[2]
    model = sn.load(saved(theirs, tmp_path / "model"))
    assert_same_scores(model, theirs, PACKER.pack([PACKER.segment(text)]), [their_inputs(text)])
    assert all((p.grad is not None) == ("mlp" in name) for name, p in model.fuse["cross"].named_parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad  # of what sees, which has nothing to do
    assert_same_gradients(model, theirs, tmp_path / "gradients")
    assert_same_answers(model, theirs, PACKER.pack([PACKER.segment(text[:-1])], alone=True), [their_inputs(text, answer=False)], END, 10)


def test_the_published_size_has_every_parameter() -> None:
    """All but the norm of the tower's first place, which is not read."""
    config = transformers.IdeficsConfig(
        additional_vocab_size=2, cross_layer_interval=4, qk_layer_norms=True, use_resampler=True, vision_config=dict(embed_dim=1280),
        perceiver_config=dict(use_resampler=True, qk_layer_norms_perceiver=True))
    with torch.device("meta"):
        wanted = sum(p.numel() for name, p in transformers.IdeficsForVisionText2Text(config).named_parameters() if "post_layernorm" not in name)
    assert PUBLISHED["idefics"].spec(config.to_dict()) == idefics_9b()
    assert sum(p.numel() for p in idefics_9b().build(device="meta").parameters()) == wanted == 8_929_677_072


def words() -> Any:
    """A tokenizer of a few words, with IDEFICS's own."""
    known = ["<unk>", "<s>", "x", "</s>", "User:", "What", "Assistant:", "<fake_token_around_image>", "<image>"]
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
                                                additional_special_tokens=known[-2:])


def test_a_prompt_is_prepared_as_published(tmp_path: Path) -> None:
    """The processor's own pixels, ids and mask for pictures with words between; two pictures side by side share an edge there and not here."""
    tokenizer = words()
    tokenizer.save_pretrained(tmp_path)
    processor = IdeficsImageProcessorPil(image_size=16)
    processor.save_pretrained(tmp_path)
    saved(reference(), tmp_path)
    model = sn.load(tmp_path)
    rng = np.random.default_rng(0)
    pictures = [Pillow.fromarray(rng.integers(0, 256, (height, 40, 3), dtype=np.uint8)) for height in (30, 60)]
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
    desk = Desk(model)
    segment = desk.segment(["<s> User:", sn.Image(tmp_path / "0.png"), "What Assistant:", sn.Image(tmp_path / "1.png"), "What"])
    edge = "<fake_token_around_image>"
    ids = tokenizer(f"<s> User: {edge}<image>{edge} What Assistant: {edge}<image>{edge} What", return_tensors="pt")["input_ids"]
    seen, _ = image_attention_mask_for_packed_input_ids(ids, tokenizer, "pt")
    mask = incremental_to_binary_attention_mask(seen.clone(), "pt", num_classes=2)
    assert segment.token[2:] == ids[0].tolist()[2:] and len(segment) == ids.shape[1]  # what a person types names no special tokens
    assert segment.sees == [int(row.argmax()) if row.any() else -1 for row in mask[0]]
    pixels = processor(pictures, return_tensors="pt")
    torch.testing.assert_close(torch.stack([item.value for item in segment.inputs]), torch.as_tensor(pixels), rtol=1e-4, atol=2e-5)
