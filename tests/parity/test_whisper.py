"""Whisper against transformers: states, scores, loss, gradients, looks, generation, from its own saved folder; and base on its real weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import sensorium as sn
from sensorium import catalog
from sensorium.checkpoint import read_published
from sensorium.fuse import Watch
from sensorium.generate import Sampling, continue_text
from sensorium.layers.cache import Cache
from sensorium.zoo.whisper import SIZES, whisper_size

from .reference import CLOSE, assert_same_gradients, saved, shaken

START, END = 1, 3
PACKER = sn.Packer(places={"audio": 0}, row=64, end=END)
GIVEN = [([START, 20, 21], [30, 31, 32, 33]), ([START, 12, 25, 26], [40, 41])]


def reference() -> Any:
    config = transformers.WhisperConfig(
        vocab_size=60, num_mel_bins=8, d_model=24, encoder_layers=2, decoder_layers=3, encoder_attention_heads=2, decoder_attention_heads=4,
        encoder_ffn_dim=40, decoder_ffn_dim=96, max_source_positions=6, max_target_positions=30, decoder_start_token_id=START,
        bos_token_id=START, eos_token_id=END, pad_token_id=0, suppress_tokens=None, begin_suppress_tokens=None)
    config._attn_implementation = "eager"  # the only one that gives its attention out
    model = shaken(transformers.WhisperForConditionalGeneration(config))
    places = model.model.encoder.embed_positions  # sinusoids in every published file
    with torch.no_grad():
        places.weight.copy_(transformers.WhisperForConditionalGeneration(config).model.encoder.embed_positions.weight)
    model.generation_config.alignment_heads = [[2, 1], [0, 3]]
    return model


def mels(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 8, 12, generator=torch.Generator().manual_seed(3))


def packed(answers: bool = True, alone: bool = False) -> sn.Batch:
    parts = [[sn.Arrays("audio", mel), sn.Arrays("text", ask)] + [sn.Arrays("text", answer, target=True)] * answers
             for mel, (ask, answer) in zip(mels(), GIVEN, strict=True)]
    return PACKER.pack([PACKER.segment(sample) for sample in parts], alone=alone)


def test_forward_and_backward(tmp_path: Path) -> None:
    theirs, report = reference(), sn.Coverage()
    model = sn.load(saved(theirs, tmp_path / "model"), report=report)
    assert report.ignored == {"model.encoder.embed_positions.weight": "sinusoids, which are computed"}
    assert model.spec.fuse["cross"].timing == ((2, 1), (0, 3))
    torch.testing.assert_close(model.aligned("audio", mels()), theirs.model.encoder(mels()).last_hidden_state, **CLOSE)
    batch = packed()
    assert len(batch.token_BT) == 1, "both sounds and their transcripts share a row"
    logits, total = model.logits(model.read(batch)), 0.0
    for number, (ask, answer) in enumerate(GIVEN):
        ids = torch.tensor([[*ask, *answer, END]])
        out = theirs(input_features=mels()[number : number + 1], decoder_input_ids=ids)
        torch.testing.assert_close(logits[batch.layout.segment_BT == number], out.logits[0], **CLOSE)
        rest = out.logits[0, len(ask) - 1 : -1]
        total = total + torch.nn.functional.cross_entropy(rest, ids[0, len(ask) :], reduction="sum")
    ours, labels = model.losses(batch)["next_token"], int((batch.label_BT >= 0).sum())
    torch.testing.assert_close(ours, total / labels, **CLOSE)
    ours.backward()
    (total / labels).backward()
    assert_same_gradients(model, theirs, tmp_path / "gradients")


def test_generation(tmp_path: Path) -> None:
    theirs = reference()
    model = sn.load(saved(theirs, tmp_path))
    ours = continue_text(model, packed(answers=False, alone=True), Sampling(max_tokens=12, end=END))
    for mel, (ask, _), ids in zip(mels(), GIVEN, ours, strict=True):
        said = list(ask)
        for _ in range(12):
            said.append(int(theirs(input_features=mel[None], decoder_input_ids=torch.tensor([said])).logits[0, -1].argmax()))
            if said[-1] == END:
                break
        assert ids == [i for i in said[len(ask) :] if i != END]
    assert any(len(ids) > 3 for ids in ours)


def test_what_heads_look_at(tmp_path: Path) -> None:
    theirs = reference()
    model = sn.load(saved(theirs, tmp_path))
    ids = torch.tensor([[START, 20, 21, 30, 31], [START, 12, 25, 40, 41]])
    out = theirs(input_features=mels(), decoder_input_ids=ids, output_attentions=True)
    cache = Cache()
    cache.memory = model.remember(model.aligned("audio", mels()))
    batch, watch = sn.Batch(token_BT=ids, media_BT=torch.zeros_like(ids)), Watch(model.fuse["cross"])
    torch.testing.assert_close(model.logits(model.read(batch, cache, watch)), out.logits, **CLOSE)
    assert watch.looks_BNTS.shape == (2, 2, 5, 6)
    for place, (layer, head) in enumerate(model.spec.fuse["cross"].timing):
        torch.testing.assert_close(watch.looks_BNTS[:, place], out.cross_attentions[layer][:, head], **CLOSE)


def test_several_prompts_of_one_sound_share_its_memory(tmp_path: Path) -> None:
    """Rows of a memory, as beams or candidates use them, are the sounds they came from; nothing is encoded again."""
    model = sn.load(saved(reference(), tmp_path))
    ids, rows = torch.tensor([[START, 20], [START, 12], [START, 33]]), torch.tensor([1, 1, 0])
    cache = Cache()
    cache.memory = model.remember(model.aligned("audio", mels()))
    model.encoders["audio"].forward = None  # nobody may call it
    once = cache.rows(rows)
    step = [model.read(sn.Batch(token_BT=ids[:, i : i + 1], media_BT=ids[:, i : i + 1] * 0), once) for i in (0, 1)]
    for row, sound in enumerate(rows.tolist()):
        alone = Cache()
        alone.memory = cache.memory.rows(torch.tensor([sound]))
        state = model.read(sn.Batch(token_BT=ids[row : row + 1], media_BT=ids[row : row + 1] * 0), alone)
        torch.testing.assert_close(torch.cat(step, dim=1)[row], state[0], **CLOSE)


def test_too_much_of_anything_is_refused(tmp_path: Path) -> None:
    model = sn.load(saved(reference(), tmp_path))
    for shape in ((1, 8, 14), (1, 7, 12), (1, 8, 11), (8, 12), (1, 8, 0)):
        with pytest.raises(sn.ShapeError, match="audio encoder"):
            model.aligned("audio", torch.zeros(shape))
    with pytest.raises(sn.ShapeError, match="30 places"):
        model.read(sn.Batch(token_BT=torch.ones(1, 31, dtype=torch.int64), media_BT=torch.zeros(1, 31, dtype=torch.int64)))


def test_the_headless_edition_and_what_is_not_built(tmp_path: Path) -> None:
    theirs = reference()
    folder = saved(theirs.model, tmp_path / "headless")
    for name, value in sn.load(folder).state_dict().items():
        assert torch.equal(value, sn.load(saved(theirs, tmp_path / "whole")).state_dict()[name])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"activation_function": "relu"}))
    with pytest.raises(sn.ConfigError, match="activation_function"):
        sn.load(folder)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_published_ones(name: str) -> None:
    """Millions, from table 1 of the paper."""
    spec = whisper_size(name)
    count = sum(p.numel() for p in spec.build(device="meta").parameters()) + 1500 * spec.decoder.width
    assert count / 1e6 == pytest.approx({"tiny": 39, "base": 74, "small": 244, "medium": 769, "large": 1550}[name], rel=0.04)


SENTENCES = ["The quick brown fox jumps over the lazy dog.", "My telephone number is five five five, one two three four.",
             "Tomorrow it will rain in London, but the sun will shine in Madrid."]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["whisper-base", "whisper-tiny-en"])
def test_real_weights_hear_what_the_reference_hears(name: str) -> None:
    """fp16 weights out of CTranslate2's file, read into float32 on both sides; the speech is espeak's."""
    if not catalog.ready(name):
        pytest.skip(f"needs: sensorium pull {name}")
    pytest.importorskip("espeakng_loader")
    from sensorium.codecs import espeak
    from sensorium.codecs.waves import resample

    files, report = read_published(catalog.find(name)), sn.Coverage()
    model = sn.load(catalog.find(name), report=report)
    known = set(transformers.WhisperConfig().to_dict()) - {"model_type"}
    theirs = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**{k: v for k, v in files.config.items() if k in known})).eval()
    found = theirs.load_state_dict({name: value.float() for name, value in files.tensors.items()}, strict=False)
    assert found.missing_keys == ["proj_out.weight"] and all(name.endswith("k_proj.bias") for name in found.unexpected_keys)
    theirs.tie_weights()
    sounds = [resample(espeak.waveform(text), espeak.rate(), 16_000).numpy() for text in SENTENCES]
    mel = transformers.WhisperFeatureExtractor()(sounds, sampling_rate=16_000, return_tensors="pt").input_features
    prompt = [50258, 50259, 50359, 50363] if model.spec.encoders["text"].size > 51_864 else [50257, 50362]
    end, packer = prompt[0] - 1, sn.Packer(places={"audio": 0})
    batch = packer.pack([packer.segment([sn.Arrays("audio", m), sn.Arrays("text", prompt)]) for m in mel], alone=True)
    ours = continue_text(model, batch, Sampling(max_tokens=40, end=end))
    with torch.inference_mode():
        encoded, said = theirs.model.encoder(mel), torch.tensor([prompt] * len(mel))
        for _ in range(40):
            logits = theirs(encoder_outputs=encoded, decoder_input_ids=said).logits[:, -1]
            said = torch.cat([said, logits.argmax(-1, keepdim=True)], dim=1)
    wanted = [row[: row.index(end)] if end in row else row for row in said[:, len(prompt) :].tolist()]
    assert ours == wanted and all(len(row) > 8 for row in ours)
