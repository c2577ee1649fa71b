"""Batches: one bad item is named; what is longer than a model reads is cut with a warning, silently, or refused, as the caller says."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

import sensorium as sn
from sensorium.denoise import Solver
from sensorium.desk import Codecs
from sensorium.types import MediaError, ModalityError

from .toys import SOUND, saved_toy, saved_whole_toy, tokenizer

LONG = "word " * 60


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> sn.ModelNet:
    return sn.load(saved_toy(tmp_path_factory.mktemp("toy") / "toy"))


def towers() -> tuple[sn.ModelNet, Codecs]:
    """A model of two towers, whose texts stand between two marks."""
    words = tokenizer()
    spec = sn.Model(encoders={"text": sn.TextEncoder(vocab=words.vocab, context=16, width=16, depth=1, heads=2),
                              "image": sn.VisionEncoder(size=8, patch=4, width=16, depth=1, heads=2)},
                    align={"text": sn.Project(16, 8, pool="last"), "image": sn.Project(16, 8, pool="first")},
                    heads={"embed": sn.Unit()}, objectives=(sn.Contrastive("image", "text"),))
    return spec.build(seed=0), Codecs(text=words, image=sn.VisionCodec(size=8), context=16, start="<say>", stop="<end>")


def test_one_long_text_among_many_is_cut_with_a_warning(model: sn.ModelNet) -> None:
    """As sentence-transformers cuts at max_seq_length; there without a word."""
    texts = ["a dog"] * 17 + [LONG] + ["a cat"] * 3 + [LONG]
    with pytest.warns(sn.TruncationWarning, match=r"item 18 of 22: a text of 300 characters .* reads 32 tokens, and 1 more; the rest was left out"):
        points = sn.embed(model, texts)
    ids = model_ids(LONG)[:32]
    assert torch.allclose(points[17], sn.embed(model, [tokenizer().decode(ids)])[0], atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(sn.embed(model, texts, truncate=True), points)
        assert torch.allclose(sn.embed(model, ["a dog"], truncate=False)[0], points[0], atol=1e-6)
    with pytest.raises(MediaError, match=r"item 18 of 22: .* shorten it, or let it be cut"):
        sn.embed(model, texts, truncate=False)


def model_ids(text: str) -> list[int]:
    return tokenizer().encode(text)


def test_a_tower_keeps_room_for_the_marks_around_a_text() -> None:
    """Sixteen places, two of them marks: a text of fifteen tokens is cut, and that is said."""
    model, codecs = towers()
    words = codecs.text
    text = next(text for size in range(1, 60) if len(words.encode(text := "a" * size)) >= 15)
    with pytest.warns(sn.TruncationWarning, match=r"item 2 of 3: .* reads 14 tokens"):
        points = sn.embed(model, ["a", text, "b"], codecs)
    assert torch.allclose(points[1], sn.embed(model, [text], codecs, truncate=True)[0], atol=1e-6)
    with pytest.raises(MediaError, match="reads 14 tokens; shorten it"):
        sn.embed(model, [text], codecs, truncate=False)


@pytest.mark.parametrize("how", ["read", "towers"])
def test_the_bad_one_is_named(model: sn.ModelNet, tmp_path: Path, how: str) -> None:
    which, codecs = (model, None) if how == "read" else towers()
    sn.Image(torch.zeros(3, 8, 8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"nothing of the kind")
    values = ["a dog", sn.Image(tmp_path / "good.png"), sn.Image(tmp_path / "good.png"), sn.Image(tmp_path / "bad.png")]
    with pytest.raises(MediaError, match=r"item 4 of 4: .*bad\.png"):
        sn.embed(which, values, codecs)
    with pytest.raises(MediaError, match=r"^\S*bad\.png"):
        sn.embed(which, values[3:], codecs)
    with pytest.raises(ModalityError, match="item 2 of 2: .*audio"):
        sn.embed(model, ["a dog", sn.Audio(torch.zeros(1600), rate_hz=16_000)])


def test_the_bad_prompt_is_named(model: sn.ModelNet, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="item 2 of 3: .*none.png"):
        sn.write_texts(model, [["a"], [sn.Image(tmp_path / "none.png")], ["b"]])
    with pytest.raises(MediaError, match="item 3 of 3: .*shorten it"):
        sn.draw_images(model, [["a"], ["b"], [LONG]], Solver(steps=1))


def test_a_sound_longer_than_a_model_hears_is_told_of(tmp_path: Path) -> None:
    model = sn.load(saved_whole_toy(tmp_path / "whole"))
    length_s = SOUND / 100
    sounds = [sn.Audio(torch.zeros(round(16_000 * length)), rate_hz=16_000) for length in (length_s, length_s + 1)]
    with pytest.warns(sn.TruncationWarning, match=f"item 2 of 2: a sound of {length_s + 1:.1f} s is given, and the model hears the first"):
        sn.embed(model, sounds)
    with pytest.warns(sn.TruncationWarning, match="a sound of"):
        sn.respond(model, sn.Request([sn.user(sounds[1])], max_tokens=2))
    with pytest.raises(MediaError, match="a sound of .* shorten it"):
        sn.embed(model, sounds[1:], truncate=False)
