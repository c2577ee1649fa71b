"""SmolVLM and Idefics3 against transformers: several tiles a sample, scores, loss, gradients and generation, from their own saved folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from PIL import Image as Pillow

import sensorium as sn
from sensorium.codecs.text import Tokenizer
from sensorium.desk import Codecs, Desk
from sensorium.zoo import ENTRIES

from .reference import CLOSE, assert_same_answers, assert_same_gradients, assert_same_scores, published, saved, shaken

IMAGE, END = 59, 3
PACKER = sn.Packer(places={"image": 4}, row=96, end=END)


def reference(kind: str, size: int = 16) -> Any:
    text = dict(model_type="llama", hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                vocab_size=60, rms_norm_eps=1e-5, pad_token_id=0, bos_token_id=1, eos_token_id=END)
    vision = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, image_size=size, patch_size=4)
    config = getattr(transformers, f"{kind}Config")(text_config=text, vision_config=vision, image_token_id=IMAGE, scale_factor=2,
                                                    tie_word_embeddings=False, pad_token_id=0)
    return shaken(getattr(transformers, f"{kind}ForConditionalGeneration")(config))


def samples(size: int = 16) -> list[list[sn.Arrays]]:
    """Texts between tiles; the second has one picture, the first three tiles of one and another picture."""
    generator = torch.Generator().manual_seed(2)

    def tile() -> sn.Arrays:
        return sn.Arrays("image", torch.randn(3, size, size, generator=generator))

    return [[sn.Arrays("text", [1, 9]), tile(), sn.Arrays("text", [10]), tile(), sn.Arrays("text", [11]), tile(), sn.Arrays("text", [20, 21]), tile(),
             sn.Arrays("text", [22]), sn.Arrays("text", [30, 31, 32], target=True)],
            [sn.Arrays("text", [1, 12]), tile(), sn.Arrays("text", [25]), sn.Arrays("text", [40, 41], target=True)]]


def their_inputs(parts: list[sn.Arrays], answer: bool = True, places: int = 4) -> dict[str, torch.Tensor]:
    ids, labels = [], []
    for part in parts:
        if part.target and not answer:
            continue
        more = [IMAGE] * places if part.modality == "image" else [*part.value, *([END] if part.target else [])]
        ids += more
        labels += more if part.target else [-100] * len(more)
    ids = torch.tensor([ids])
    pixels = torch.stack([part.value for part in parts if part.modality == "image"])[None]
    out = {"input_ids": ids, "pixel_values": pixels, "attention_mask": torch.ones_like(ids)}
    return out | ({"labels": torch.tensor([labels])} if answer else {})


@pytest.mark.parametrize("kind", ["Idefics3", "SmolVLM"])
def test_forward_and_backward(kind: str, tmp_path: Path) -> None:
    theirs, report = reference(kind), sn.Coverage()
    model = sn.load(saved(theirs, tmp_path / "model"), report=report)
    assert not report.ignored
    batch = PACKER.pack([PACKER.segment(parts) for parts in samples()])  # both samples share a row
    assert len(batch.token_BT) == 1 and len(batch.media["image"]) == 5
    assert_same_scores(model, theirs, batch, [their_inputs(parts) for parts in samples()])
    assert_same_gradients(model, theirs, tmp_path / "gradients")


def test_generation(tmp_path: Path) -> None:
    theirs = reference("SmolVLM")
    model = sn.load(saved(theirs, tmp_path))
    prompts = [parts[:-1] for parts in samples()]
    given = [their_inputs(parts, answer=False) for parts in prompts]
    assert_same_answers(model, theirs, PACKER.pack([PACKER.segment(parts) for parts in prompts], alone=True), given, END, 10)


def test_places_of_a_side_that_does_not_divide_evenly(tmp_path: Path) -> None:
    """26 patches on a side, as Idefics3-8B's tiles have: the reference finds each place by its fraction of the side, in float32."""
    theirs = reference("Idefics3", size=104)
    model, packer, parts = sn.load(saved(theirs, tmp_path)), sn.Packer(places={"image": 169}, row=800), samples(104)[1][:-1]
    with torch.no_grad():
        ours = model.logits(model.read(packer.pack([packer.segment(parts)])))
        torch.testing.assert_close(ours[0], theirs(**their_inputs(parts, answer=False, places=169)).logits[0], **CLOSE)


def processor() -> Any:
    """The published processor over a small vocabulary; its picture half is the one that works without torchvision."""
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    words = ["<unk>", "what", "is", "this", "\n", "\n\n"]
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"\n+|\w+"), "isolated")
    rows = [f"<row_{r}_col_{c}>" for r in range(1, 5) for c in range(1, 5)]
    inner.add_special_tokens(["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *rows])
    pictures = Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 16}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", pad_token="<unk>")
    return transformers.Idefics3Processor(image_processor=pictures, tokenizer=fast, image_seq_len=4)


@pytest.mark.parametrize("size", [(50, 120), (120, 50), (64, 64), (15, 15), (200, 200), (20, 33), (9, 90)])
def test_prepared_inputs(size: tuple[int, int]) -> None:
    """Tiles, their order, and the ids around them, of pictures of many shapes."""
    theirs, values = processor(), np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    wanted = theirs(images=[Pillow.fromarray(values)], text="what<image>is", return_tensors="pt")
    text = Tokenizer.from_text(theirs.tokenizer.backend_tokenizer.to_str(), "the vocabulary")
    model = ENTRIES["smolvlm"].toy().build()
    desk = Desk(model, Codecs(text=text, image=sn.SplitCodec(sn.VisionCodec(size=16, resample="lanczos"), longest=64)))
    batch = desk.packer.pack([desk.segment(["what", sn.Image(torch.from_numpy(values).permute(2, 0, 1).float() / 255), "is"])])
    torch.testing.assert_close(batch.media["image"], wanted.pixel_values[0], **CLOSE)
    assert batch.token_BT.where(batch.media_BT == 0, theirs.image_token_id).tolist() == wanted.input_ids.tolist()
    assert model.read(batch).shape[1] == wanted.input_ids.shape[1]


def test_a_small_picture_is_one_tile() -> None:
    codec = sn.SplitCodec(sn.VisionCodec(size=16), longest=16)
    assert len(codec.encode(sn.Image(torch.rand(3, 40, 30)))) == 3 and sn.from_json(codec.to_json()) == codec


def test_the_codec_is_as_the_files_say(tmp_path: Path) -> None:
    settings = dict(size={"longest_edge": 64}, max_image_size={"longest_edge": 16}, do_image_splitting=False, image_std=[0.25] * 3)
    found = sn.Codecs.load(published(reference("SmolVLM"), tmp_path, settings)).image
    assert found == sn.SplitCodec(sn.VisionCodec(size=16, fit="squash", resample="lanczos", std=(0.25,) * 3), longest=64, split=False)


def test_a_video_is_told_as_published(tmp_path: Path) -> None:
    """The text around the frames, from the published processor; its decoding and resizing of videos wants torchvision, which is not here."""
    from types import SimpleNamespace

    settings = dict(max_image_size={"longest_edge": 16}, video_sampling=dict(fps=1, max_frames=25, video_size={"longest_edge": 16}))
    codec = sn.Codecs.load(published(reference("SmolVLM"), tmp_path, settings)).video
    made = codec.encode(sn.Video(torch.rand(100, 3, 16, 32), rate_hz=1.0))
    times = [second + 0.0 for second in codec.chosen(100, 1.0)]
    names = dict(fake_image_token="<fake_token_around_image>", image_token="<image>", global_image_token="<global-img>", image_seq_len=1)
    given = {"pixel_values": torch.zeros(1, 25, 1), "video_metadata": [SimpleNamespace(fps=1.0, timestamps=times, duration=100.0)]}
    wanted = transformers.SmolVLMProcessor.replace_video_token(SimpleNamespace(**names), given, 0)
    assert "".join(piece if isinstance(piece, str) else "<image>" for piece in made) == wanted and "twenty-five" in wanted
