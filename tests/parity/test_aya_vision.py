"""Aya Vision against transformers: scores, loss, gradients and generation from its own saved folder.

The reference of today leaves out the language model's ``logit_scale`` (its head is its own, where it was once Cohere2ForCausalLM's, which
has it). It was trained with it and its config says it, so ours has it: the reference's scores are multiplied before they are compared.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from PIL import Image as Pillow
from torch.nn.functional import cross_entropy

import sensorium as sn
from sensorium.codecs.text import Tokenizer
from sensorium.desk import Codecs, Desk
from sensorium.zoo import ENTRIES
from sensorium.zoo.aya_vision import aya_vision_8b

from .reference import CLOSE, assert_same_answers, assert_same_gradients, saved, shaken, tensors

IMAGE, END, TILE, WHOLE, START, STOP = 59, 3, 50, 54, 55, 56  # tiles are numbered from TILE on
PLACES, SCALE = 4, 0.5
PACKER = sn.Packer(places={"image": PLACES}, row=128, end=END)


def reference(**changes: Any) -> Any:
    vision = transformers.SiglipVisionConfig(hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=2, image_size=16,
                                             patch_size=4, vision_use_head=False)
    text = transformers.Cohere2Config(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
                                      vocab_size=60, logit_scale=SCALE, sliding_window=6, sliding_window_pattern=2, bos_token_id=1,
                                      eos_token_id=END, pad_token_id=0)
    config = transformers.AyaVisionConfig(**{**dict(vision_config=vision, text_config=text, image_token_index=IMAGE,
                                                    alignment_intermediate_size=40), **changes})
    return shaken(transformers.AyaVisionForConditionalGeneration(config))


def samples() -> list[list[sn.Arrays]]:
    """A picture in three tiles and whole, and a small one that is whole alone, among words."""
    generator, out = torch.Generator().manual_seed(3), []
    for tiles, question, answer in ((3, [20, 21, 22], [30, 31, 32, 33]), (0, [25], [40, 41])):
        parts = [sn.Arrays("text", [1, START])]
        for number in [*range(1, tiles + 1), 0]:
            parts += [sn.Arrays("text", [TILE + number if number else WHOLE]), sn.Arrays("image", torch.randn(3, 16, 16, generator=generator))]
        out.append([*parts, sn.Arrays("text", [STOP, *question]), sn.Arrays("text", answer, target=True)])
    return out


def their_inputs(parts: list[sn.Arrays], answer: bool = True) -> dict[str, torch.Tensor]:
    ids, labels = [], []
    for part in parts:
        if part.target and not answer:
            continue
        more = [IMAGE] * PLACES if part.modality == "image" else [*part.value, *([END] if part.target else [])]
        ids += more
        labels += more if part.target else [-100] * len(more)
    ids = torch.tensor([ids])
    pixels = torch.stack([part.value for part in parts if part.modality == "image"])
    out = {"input_ids": ids, "pixel_values": pixels, "attention_mask": torch.ones_like(ids)}
    return out | ({"labels": torch.tensor([labels])} if answer else {})


@pytest.mark.parametrize("layer", [-1, -2])
def test_forward_and_backward(layer: int, tmp_path: Path) -> None:
    theirs, report = reference(vision_feature_layer=layer), sn.Coverage()
    model = sn.load(saved(theirs, tmp_path / "model"), report=report)
    assert set(report.ignored.values()) == {"behind the picture layer that is read"} and model.spec.places("image") == PLACES
    batch = PACKER.pack([PACKER.segment(parts) for parts in samples()])  # both samples share a row
    assert len(batch.token_BT) == 1
    logits, total = model.logits(model.read(batch)), 0.0
    for number, parts in enumerate(samples()):
        given = their_inputs(parts)
        wanted, label = theirs(**given).logits[0] * SCALE, given["labels"][0, 1:]
        torch.testing.assert_close(logits[batch.layout.segment_BT == number], wanted, **CLOSE)
        total = total + cross_entropy(wanted[:-1], label, reduction="sum")
    labels = int((batch.label_BT >= 0).sum())
    ours = model.losses(batch)["next_token"]
    torch.testing.assert_close(ours, total / labels, **CLOSE)
    ours.backward()
    (total / labels).backward()
    assert_same_gradients(model, theirs, tmp_path / "gradients")


def test_generation(tmp_path: Path) -> None:
    theirs = reference()
    model = sn.load(saved(theirs, tmp_path))
    prompts = [parts[:-1] for parts in samples()]
    given = [their_inputs(parts, answer=False) for parts in prompts]
    assert_same_answers(model, theirs, PACKER.pack([PACKER.segment(parts) for parts in prompts], alone=True), given, END, 20)


def test_other_editions_of_the_layout_load(tmp_path: Path) -> None:
    """The same tensors under the names of the published files."""
    from safetensors.torch import save_file

    folder = saved(reference(), tmp_path / "now")
    model, other = sn.load(folder), tmp_path / "published"
    other.mkdir()
    names = {"model.vision_tower.": "vision_tower.vision_model.", "model.multi_modal_projector.": "multi_modal_projector.",
             "model.language_model.": "language_model.model.", "vision_tower.encoder": "vision_tower.vision_model.encoder"}
    stored = {}
    for name, value in tensors(folder).items():
        old = next((start for start in names if name.startswith(start)), "")
        stored[names.get(old, "") + name.removeprefix(old)] = value
    save_file(stored, other / "model.safetensors")
    (other / "config.json").write_bytes((folder / "config.json").read_bytes())
    for name, value in sn.load(other).state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


@pytest.mark.parametrize("change", [("vision_feature_select_strategy", "default"), ("vision_feature_layer", [-1, -2]),
                                    ("alignment_activation_fn", "gelu")])
def test_what_is_not_built_is_refused(change: tuple[str, Any], tmp_path: Path) -> None:
    folder = saved(reference(), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, change[0]: change[1]}))
    with pytest.raises(sn.ConfigError, match=change[0]):
        sn.load(folder)


def processor() -> Any:
    """The published processor over a small vocabulary; its picture half is the one that works without torchvision."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(("<unk>", "what", "is", "this"))}, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.add_special_tokens(["<image>", "<|IMG_PATCH|>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "TILE_GLOBAL", *(f"TILE_{i}" for i in range(1, 13))])
    pictures = GotOcr2ImageProcessorPil(size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.5] * 3, max_patches=12)
    words = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", pad_token="<unk>")
    return transformers.AyaVisionProcessor(image_processor=pictures, tokenizer=words, patch_size=8, img_size=16)


@pytest.mark.parametrize("size", [(50, 120), (120, 50), (16, 16), (15, 15), (200, 200), (20, 33), (7, 90)])
def test_prepared_inputs(size: tuple[int, int]) -> None:
    """Tiles, their order, and the ids around them, of pictures of many shapes."""
    theirs, values = processor(), np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    wanted = theirs(images=[Pillow.fromarray(values)], text="what <image> is this", return_tensors="pt")
    text = Tokenizer.from_text(theirs.tokenizer.backend_tokenizer.to_str(), "the vocabulary")
    model = ENTRIES["aya_vision"].toy().build()
    desk = Desk(model, Codecs(text=text, image=sn.StretchCodec(sn.VisionCodec(size=16))))
    batch = desk.packer.pack([desk.segment(["what", sn.Image(torch.from_numpy(values).permute(2, 0, 1).float() / 255), "is this"])])
    torch.testing.assert_close(batch.media["image"], wanted.pixel_values, **CLOSE)
    patch = theirs.image_token_id
    assert batch.token_BT.where(batch.media_BT == 0, patch).tolist() == wanted.input_ids.tolist()
    assert model.read(batch).shape[1] == wanted.input_ids.shape[1]


def test_the_published_size_takes_the_published_places() -> None:
    """169 tokens a tile, each behind its mark; the most, 12 tiles and the whole, take 2,212 with what stands around them."""
    places = aya_vision_8b().places("image")
    assert places == 169 and 13 * (places + 1) + 2 == 2_212
    codec = sn.StretchCodec(sn.VisionCodec(size=364))
    assert codec.grid(1000, 750) == (4, 3) and sn.from_json(codec.to_json()) == codec


def test_a_folder_says_how_its_pictures_are_prepared(tmp_path: Path) -> None:
    """The template writes <image> where the settings name another token."""
    theirs = processor()
    theirs.tokenizer.chat_template = ("{% for m in messages %}{% for part in m['content'] %}{% if part['type'] == 'image' %}<image>{% else %}"
                                      "{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}")
    model = reference(image_token_index=theirs.tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>"))
    theirs.tokenizer.save_pretrained(tmp_path)
    settings = {"size": {"height": 16, "width": 16}, "max_patches": 6, "image_mean": [0.4] * 3, "image_std": [0.2] * 3, "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    codecs = sn.Codecs.load(saved(model, tmp_path))
    assert codecs.image == sn.StretchCodec(sn.VisionCodec(size=16, fit="squash", mean=(0.4,) * 3, std=(0.2,) * 3), most=6)
    assert codecs.template.media["image"] == "<image>"
