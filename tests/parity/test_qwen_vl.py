"""Qwen2.5-VL and Qwen2 against transformers: scores, loss, gradients, generation, prepared inputs, from their own saved folders.

The published processor of videos needs torchvision: what it does between resizing and the model is restated here from its source
(``Qwen2VLVideoProcessor.sample_frames`` and ``patchify``); resizing itself is Pillow's here and torchvision's there, and is not compared.
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
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

import sensorium as sn
from sensorium.codecs.native import from_config, patched
from sensorium.desk import Desk
from sensorium.generate import Sampling, continue_text
from sensorium.types import assistant, user
from sensorium.zoo.qwen_vl import qwen_vl_3b, qwen_vl_7b, qwen_vl_72b

from ..chats import WORDS
from .reference import CLOSE, assert_same_gradients, saved, shaken

IMAGE, VIDEO, END = 58, 59, 3
PACKER = sn.Packer(places={"image": 1, "video": 1}, row=160, end=END, axes=True)
BEATS = 3


def reference(**changes: Any) -> Any:
    vision = dict(depth=3, hidden_size=24, num_heads=2, intermediate_size=20, patch_size=4, window_size=16, fullatt_block_indexes=[1],
                  out_hidden_size=32, tokens_per_second=BEATS)
    text = {**dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=60,
                   rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=END, pad_token_id=0, max_position_embeddings=512,
                   rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[2, 1, 1])), **changes}
    config = transformers.Qwen2_5_VLConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=56, vision_end_token_id=57,
        tie_word_embeddings=changes.get("tie_word_embeddings", False), bos_token_id=1, eos_token_id=END, pad_token_id=0)
    return shaken(transformers.Qwen2_5_VLForConditionalGeneration(config))


def samples() -> list[list[sn.Arrays]]:
    """Two pictures of different sizes and a video in one sequence; another with a picture alone."""
    codec, generator = sn.NativeCodec(patch=4), torch.Generator().manual_seed(3)

    def medium(kind: str, frames: int, high: int, wide: int, **time: float) -> sn.Arrays:
        return codec.arrays(kind, torch.randn(frames, 3, high, wide, generator=generator), **time)

    first = [sn.Arrays("text", [1, 56]), medium("image", 1, 24, 40), sn.Arrays("text", [57, 20, 56]), medium("image", 1, 40, 16),
             sn.Arrays("text", [57, 56]), medium("video", 6, 16, 24, seconds=0.9, beats=float(torch.tensor(0.9) * BEATS)),
             sn.Arrays("text", [57, 21, 22]), sn.Arrays("text", [30, 31, 32, 33], target=True)]
    second = [sn.Arrays("text", [1, 12, 56]), medium("image", 1, 8, 8), sn.Arrays("text", [57, 25]), sn.Arrays("text", [40, 41], target=True)]
    return [first, second]


def their_inputs(parts: list[sn.Arrays], answer: bool = True) -> dict[str, torch.Tensor]:
    ids, labels, kinds = [], [], []
    out: dict[str, Any] = {}
    for part in parts:
        if part.target and not answer:
            continue
        kind = ("text", "image", "video").index(part.modality)
        more = [(0, IMAGE, VIDEO)[kind]] * part.value.places if kind else [*part.value, *([END] if part.target else [])]
        ids += more
        kinds += [kind] * len(more)
        labels += more if part.target else [-100] * len(more)
    for name, key, grid in (("image", "pixel_values", "image_grid_thw"), ("video", "pixel_values_videos", "video_grid_thw")):
        media = [part.value for part in parts if part.modality == name]
        if media:
            out |= {key: torch.cat([m.value_PN for m in media]), grid: torch.cat([m.grid_L3 for m in media])}
            out |= {"second_per_grid_ts": torch.tensor([m.seconds for m in media])} if name == "video" else {}
    ids = torch.tensor([ids])
    out |= {"input_ids": ids, "mm_token_type_ids": torch.tensor([kinds], dtype=torch.int32), "attention_mask": torch.ones_like(ids)}
    return out | ({"labels": torch.tensor([labels])} if answer else {})


@pytest.mark.parametrize("tied", [False, True])
def test_forward_and_backward(tied: bool, tmp_path: Path) -> None:
    theirs, report = reference(tie_word_embeddings=tied), sn.Coverage()
    model = sn.load(saved(theirs, tmp_path / "model"), report=report)
    assert not set(report.ignored) - ({"lm_head.weight"} if tied else set()) and model.spec.heads["text"].tied == tied
    batch = PACKER.pack([PACKER.segment(parts) for parts in samples()])  # both samples share a row
    assert len(batch.token_BT) == 1 and len(batch.media["image"].grid_L3) == 3
    logits, total = model.logits(model.read(batch)), 0.0
    for number, parts in enumerate(samples()):
        out = theirs(**their_inputs(parts))
        torch.testing.assert_close(logits[batch.layout.segment_BT == number], out.logits[0], **CLOSE)
        total = total + out.loss * (len(parts[-1].value) + 1)
    ours, labels = model.losses(batch)["next_token"], int((batch.label_BT >= 0).sum())
    torch.testing.assert_close(ours, total / labels, **CLOSE)
    ours.backward()
    (total / labels).backward()
    assert_same_gradients(model, theirs, tmp_path / "gradients")


def test_positions_are_the_reference_s() -> None:
    theirs = reference()
    for parts in samples():
        given = their_inputs(parts)
        wanted, ahead = theirs.model.get_rope_index(given["input_ids"], **{k: v for k, v in given.items() if k not in ("input_ids", "labels")})
        batch = PACKER.pack([PACKER.segment(parts)])
        assert torch.equal(batch.layout.axes_BTA.permute(2, 0, 1), wanted)
        assert torch.equal(batch.next_B - given["input_ids"].shape[1], ahead[:, 0])


def test_generation(tmp_path: Path) -> None:
    theirs = reference()
    model = sn.load(saved(theirs, tmp_path))
    prompts = [parts[:-1] for parts in samples()]
    batch = PACKER.pack([PACKER.segment(parts) for parts in prompts], alone=True)
    ours = continue_text(model, batch, Sampling(max_tokens=12, end=END))
    for parts, ids in zip(prompts, ours, strict=True):
        given = their_inputs(parts, answer=False)
        wanted = theirs.generate(**given, max_new_tokens=12, do_sample=False)[0, given["input_ids"].shape[1] :].tolist()
        assert ids == [i for i in wanted if i != END]
    assert any(len(ids) > 6 for ids in ours)


def test_older_configs_say_the_same(tmp_path: Path) -> None:
    """Flat, with ``rope_scaling`` of type mrope, as the published files are."""
    folder = saved(reference(), tmp_path)
    spec = sn.load(folder).spec
    assert spec.decoder.read.rope_axes == (2, 1, 1)
    config = json.loads((folder / "config.json").read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    flat = {**text, **config, "rope_theta": rope["rope_theta"], "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]}}
    flat["vision_config"]["in_chans"] = flat["vision_config"].pop("in_channels")
    (folder / "config.json").write_text(json.dumps(flat))
    assert sn.load(folder).spec == spec


@pytest.mark.parametrize("change", [('"silu"', '"gelu"', "hidden_act"), ('"rope_type": "default"', '"rope_type": "yarn"', "yarn"),
                                    ('"out_hidden_size": 32', '"out_hidden_size": 40', "out_hidden_size")])
def test_what_is_not_built_is_refused(change: tuple[str, str, str], tmp_path: Path) -> None:
    folder = saved(reference(), tmp_path)
    old, new, says = change
    assert old in (folder / "config.json").read_text()
    (folder / "config.json").write_text((folder / "config.json").read_text().replace(old, new))
    with pytest.raises(sn.ConfigError, match=says):
        sn.load(folder)


@pytest.mark.parametrize("size", [(640, 480), (37, 301), (20, 20), (1999, 700), (28, 29), (300, 2)])
@pytest.mark.parametrize("limits", [{}, dict(min_pixels=30_000, max_pixels=50_000)])
def test_pictures_are_prepared_as_published(size: tuple[int, int], limits: dict[str, int]) -> None:
    theirs = Qwen2VLImageProcessorPil(**limits)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    wanted = theirs(Pillow.fromarray(noise), return_tensors="pt")
    source = torch.from_numpy(noise).permute(2, 0, 1).float() / 255
    ours = from_config(json.loads(theirs.to_json_string()))[0].encode(sn.Image(source))
    assert torch.equal(ours.value.grid_L3, wanted["image_grid_thw"])
    torch.testing.assert_close(ours.value.value_PN, wanted["pixel_values"], rtol=1e-5, atol=1e-6)


def test_videos_are_cut_as_published() -> None:
    """The published permutation of axes, restated; an odd last frame is repeated."""
    frames, patch, join, long = torch.randn(5, 3, 24, 32), 4, 2, 2
    x = torch.cat([frames, frames[-1:]])[None].view(1, 3, long, 3, 3, join, patch, 4, join, patch)
    wanted = x.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9).reshape(-1, 3 * long * patch * patch)
    assert torch.equal(patched(frames, patch, join, long), wanted)


@pytest.mark.parametrize(("count", "rate_hz"), [(300, 30.0), (41, 24.0), (7, 30.0), (4, 25.0), (5000, 1.0), (10_000, 30.0), (2, 2.0)])
def test_frames_are_chosen_as_published(count: int, rate_hz: float) -> None:
    """``sample_frames``, restated."""
    most = min(768, count) // 2 * 2
    number = int(min(max(count / rate_hz * 2.0, 4), most, count) // 2 * 2)
    assert sn.ClipCodec().chosen(count, rate_hz) == torch.arange(0, count, count / number).int().tolist()


def test_a_word_costs_what_is_published() -> None:
    """Bytes of keys and values a token in bfloat16."""
    cost = [2 * make().decoder.read.remembered for make in (qwen_vl_3b, qwen_vl_7b, qwen_vl_72b)]
    assert cost == [36_864, 57_344, 327_680]


EDITIONS = {"tied": dict(tie_word_embeddings=True), "untied": {}, "windows": dict(use_sliding_window=True, sliding_window=4, max_window_layers=1),
            "layer by layer": dict(use_sliding_window=True, sliding_window=4, layer_types=["sliding_attention", "full_attention"])}


@pytest.mark.parametrize("edition", EDITIONS)
def test_qwen2(edition: str, tmp_path: Path) -> None:
    theirs = shaken(transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**{**dict(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=60,
        bos_token_id=1, eos_token_id=END, pad_token_id=0), **EDITIONS[edition]})))
    model = sn.load(saved(theirs, tmp_path / "model"))
    assert model.spec.decoder.read.windows == {"windows": (None, 4), "layer by layer": (4, None)}.get(edition, ())
    packer = sn.Packer(row=64, end=END)
    asks, answers = [[1, *range(20, 27)], [1, 12, 25]], [[30, 31, 32, 33], [40, 41, 42]]
    batch = packer.pack([packer.segment([sn.Arrays("text", ask), sn.Arrays("text", answer, target=True)])
                         for ask, answer in zip(asks, answers, strict=True)])
    logits, total = model.logits(model.read(batch)), 0.0
    for number, (ask, answer) in enumerate(zip(asks, answers, strict=True)):
        ids = torch.tensor([[*ask, *answer, END]])
        out = theirs(input_ids=ids, labels=ids.masked_fill(torch.arange(ids.shape[1]) < len(ask), -100))
        torch.testing.assert_close(logits[batch.layout.segment_BT == number], out.logits[0], **CLOSE)
        total = total + out.loss * (len(answer) + 1)
    ours, labels = model.losses(batch)["next_token"], int((batch.label_BT >= 0).sum())
    ours.backward()
    (total / labels).backward()
    assert_same_gradients(model, theirs, tmp_path / "gradients")
    prompts = packer.pack([packer.segment([sn.Arrays("text", ask)]) for ask in asks], alone=True)
    for ask, ids in zip(asks, continue_text(model, prompts, Sampling(max_tokens=16, end=END)), strict=True):
        wanted = theirs.generate(torch.tensor([ask]), attention_mask=torch.ones(1, len(ask)), max_new_tokens=16, do_sample=False)
        assert ids == [i for i in wanted[0, len(ask) :].tolist() if i != END]


SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
TEMPLATE = """{%- for message in messages %}
    {%- if loop.first and message.role != 'system' %}{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.content is string %}{{- message.content }}
    {%- else %}{%- for part in message.content %}
        {%- if part.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
        {%- elif part.type == 'video' %}{{- '<|vision_start|><|video_pad|><|vision_end|>' }}
        {%- else %}{{- part.text }}{%- endif %}
    {%- endfor %}{%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """A folder as it is published, the reference, and its processor; that of videos is left out."""
    folder = tmp_path_factory.mktemp("published")
    inner = tokenizers.Tokenizer.from_str(sn.Tokenizer.train(WORDS, 340, SPECIALS).to_json())
    words = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    ids = {name: words.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad", "im_end")}
    theirs = reference(vocab_size=len(words), eos_token_id=ids["im_end"])
    theirs.config.image_token_id, theirs.config.video_token_id = ids["image_pad"], ids["video_pad"]
    pictures = Qwen2VLImageProcessorPil(patch_size=4, min_pixels=16 * 16, max_pixels=64 * 64)
    saved(theirs, folder)
    words.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(pictures.to_json_string())
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    processor = transformers.Qwen2_5_VLProcessor.__new__(transformers.Qwen2_5_VLProcessor)
    processor.image_processor, processor.tokenizer, processor.image_token = pictures, words, "<|image_pad|>"
    return folder, theirs, processor


def test_a_conversation_is_prepared_as_published(published: tuple[Path, Any, Any]) -> None:
    """Pictures and a video in a chat, from their own files to the scores of the first word of the answer."""
    folder, theirs, processor = published
    model, noise = sn.load(folder), np.random.default_rng(1)
    pixels = [noise.integers(0, 256, (high, wide, 3), dtype=np.uint8) for high, wide in ((40, 90), (70, 20))]
    first, second = (sn.Image(torch.from_numpy(x).permute(2, 0, 1).float() / 255) for x in pixels)
    film = sn.Video(torch.rand(24, 3, 30, 40, generator=torch.Generator().manual_seed(0)), rate_hz=8.0)
    desk = Desk(model)
    said = [user("What is ", first, " and", second, "?"), assistant("Paris."), user(film, "Is <|image_pad|> typed?")]
    batch = desk.packer.pack([desk.prompt(said, "text")])
    frames = batch.media["video"].grid_L3[0]
    assert frames[0] == 3 and batch.media["image"].grid_L3.shape == (2, 3)  # 3 s at 2 frames a second, 2 in a patch

    words = [{"type": "text", "text": text} for text in ("What is ", " and", "?", "Is QUOTED typed?")]
    given = [[words[0], {"type": "image"}, words[1], {"type": "image"}, words[2]], "Paris.", [{"type": "video"}, words[3]]]
    text = processor.tokenizer.apply_chat_template(
        [{"role": message.role, "content": content} for message, content in zip(said, given, strict=True)], chat_template=TEMPLATE, tokenize=False,
        add_generation_prompt=True)
    looks = processor.image_processor([Pillow.fromarray(x) for x in pixels], return_tensors="pt")
    for index in range(2):
        text = text.replace("<|image_pad|>", processor.replace_image_token(looks, index).replace("image_pad", "held"), 1)
    text = text.replace("<|video_pad|>", "<|video_pad|>" * int(frames.prod() // 4)).replace("held", "image_pad")
    ids = processor.tokenizer(text.replace("QUOTED", "X"), return_tensors="pt").input_ids
    image, video = theirs.config.image_token_id, theirs.config.video_token_id
    ours = batch.token_BT.masked_fill(batch.media_BT == 2, image).masked_fill(batch.media_BT == 4, video)
    at, stop = ours[0].tolist().index(video), ids[0].tolist().index(video)
    assert ours[0, : at + int(frames.prod() // 4)].tolist() == ids[0, : stop + int(frames.prod() // 4)].tolist()
    assert (ours == image).sum() == (ids == image).sum()  # the name that was typed is words

    torch.testing.assert_close(batch.media["image"].value_PN, looks["pixel_values"], rtol=1e-5, atol=1e-6)
    kinds = (batch.media_BT == 2).int() + 2 * (batch.media_BT == 4).int()
    seconds = torch.tensor([desk.arrays(film)[0].value.seconds])
    assert seconds.tolist() == [1.0]
    wanted = theirs(input_ids=ours, attention_mask=torch.ones_like(ours), mm_token_type_ids=kinds, pixel_values=looks["pixel_values"],
                    image_grid_thw=looks["image_grid_thw"], pixel_values_videos=batch.media["video"].value_PN,
                    video_grid_thw=batch.media["video"].grid_L3, second_per_grid_ts=seconds).logits
    torch.testing.assert_close(model.logits(model.read(batch)), wanted, rtol=1e-4, atol=1e-4)


def test_it_answers(published: tuple[Path, Any, Any]) -> None:
    model = sn.load(published[0])
    picture, film = sn.Image(torch.rand(3, 30, 50)), sn.Video(torch.rand(8, 3, 30, 40), rate_hz=4.0)
    request = sn.Request([user(picture, "What is this?", film)], max_tokens=5)
    assert sn.respond(model, request).text == sn.respond(model, request).text
