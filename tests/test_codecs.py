"""Codecs: odd pictures rightly, bad ones refused, pixels as the published processors make them; text back as it came."""

from __future__ import annotations

import io
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

import sensorium as sn
from sensorium.codecs.text import StreamDecoder
from sensorium.codecs.vision import load_image, read_info
from sensorium.types import CheckpointError, ConfigError, MediaError

from .toys import SPECIALS, tokenizer

TOKENIZER = tokenizer()


def encoded(picture: Pillow.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def ramp(mode: str = "RGB") -> Pillow.Image:
    grey = np.linspace(0, 255, 48 * 32).reshape(32, 48).astype(np.uint8)
    return Pillow.fromarray(np.stack([grey, grey[::-1], np.full_like(grey, 90)], -1)).convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_mode_is_the_picture(mode: str) -> None:
    picture = ramp(mode)
    wanted = torch.from_numpy(np.asarray(picture.convert("RGBA").convert("RGB"), dtype=np.float32) / 255).permute(2, 0, 1)
    torch.testing.assert_close(load_image(encoded(picture)), wanted, atol=1e-6, rtol=0)


def test_cmyk_and_ycbcr_jpegs() -> None:
    plain = load_image(encoded(ramp(), "JPEG", quality=95))
    assert float((load_image(encoded(ramp("CMYK"), "JPEG", quality=95)) - plain).abs().mean()) < 0.02


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_cut(kind: str) -> None:
    deep = np.linspace(0, 65535, 40 * 40).reshape(40, 40).astype(np.uint16)
    found = load_image(encoded(Pillow.fromarray(deep), kind))
    assert float((found[0] - torch.from_numpy(deep.astype(np.float32) / 65535)).abs().max()) < 1 / 255


def test_transparency_lies_on_paper() -> None:
    picture = Pillow.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert torch.equal(load_image(encoded(picture)), torch.ones(3, 4, 4))
    assert float(load_image(encoded(picture), background=(0, 0, 0)).max()) == 0
    palette = Pillow.new("P", (4, 4), 0)
    assert torch.equal(load_image(encoded(palette, transparency=0)), torch.ones(3, 4, 4))


def test_the_first_frame_stands_for_an_animation() -> None:
    frames = [Pillow.new("RGB", (8, 8), colour) for colour in ("red", "green")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert load_image(data)[:, 0, 0].tolist() == [1, 0, 0]


def test_exif_turns_a_picture_upright() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    assert load_image(encoded(ramp(), "JPEG", exif=exif.tobytes())).shape == (3, 48, 32)


@pytest.mark.parametrize("data", [b"", b"hello, I am text", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"<svg/>", b"\x00" * 500])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(MediaError):
        load_image(data)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]), st.integers(0, 2**32), st.booleans())
def test_damaged_files_never_crash(kind: str, seed: int, cut: bool) -> None:
    data = bytearray(encoded(ramp(), kind))
    rng = np.random.default_rng(seed)
    if cut:
        data = data[: int(rng.integers(len(data)))]
    for _ in range(int(rng.integers(1, 12))):
        if data:
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
    try:
        found = load_image(bytes(data), max_pixels=10**6)
    except MediaError:
        return
    assert found.shape[0] == 3 and torch.isfinite(found).all()


def test_a_tensor_that_is_no_picture_is_refused() -> None:
    for wrong in (torch.zeros(4, 5), torch.zeros(1, 4, 4), torch.zeros(3, 4, 4, dtype=torch.int64), torch.full((3, 2, 2), float("nan"))):
        with pytest.raises(MediaError):
            load_image(wrong)


@pytest.mark.parametrize("size", [(48, 32), (32, 48), (50, 50)])
def test_pixels_are_those_of_the_published_clip_processor(size: tuple[int, int]) -> None:
    import transformers

    picture = ramp().resize(size)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    theirs = transformers.CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}, image_mean=mean, image_std=std)
    wanted = torch.as_tensor(np.asarray(theirs(picture)["pixel_values"][0]))
    codec = sn.VisionCodec(size=24, fit="crop", resample="bicubic", mean=mean, std=std)
    torch.testing.assert_close(codec.encode(sn.Image(encoded(picture))), wanted, atol=1e-5, rtol=0)


def test_arrays_come_back() -> None:
    codec = sn.VisionCodec(size=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    square = sn.Image(torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)))
    found = codec.decode(codec.encode(square)).source
    assert float((found - square.source).abs().max()) <= 0.5 / 255 + 1e-6


def test_a_wide_picture_is_padded_with_paper() -> None:
    x = sn.VisionCodec(size=32).encode(sn.Image(torch.zeros(3, 16, 32)))
    assert float(x[:, :8].min()) == 1.0 and float(x[:, 8:24].max()) == -1.0 and float(x[:, 24:].min()) == 1.0


def test_saved_pictures_say_what_made_them(tmp_path: Path) -> None:
    for ending in ("png", "jpg", "webp"):
        path = sn.Image(torch.rand(3, 9, 9), {"model": "红", "seed": 3}).save(tmp_path / "new" / f"a.{ending}")
        assert read_info(path) == {"model": "红", "seed": 3}
        assert load_image(path).shape == (3, 9, 9)
    with pytest.raises(MediaError, match="wanted one of"):
        sn.Image(torch.rand(3, 9, 9)).save(tmp_path / "a.xyz")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["a.jpg", "a.png", "a.webp"]


@settings(max_examples=200, deadline=None)
@given(st.text())
@example("<embed> <say> <end> <pad>")
@example("\ud800")
@example("e\u0301 \u0000 👩‍👩‍👧 １２３")
def test_any_text_comes_back(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())
    assert not set(ids) & set(range(len(SPECIALS))), "typed text became a special token"
    decoder = StreamDecoder(TOKENIZER)
    assert "".join(map(decoder.push, ids)) + decoder.finish() == TOKENIZER.decode(ids)


def test_the_tokenizer_knows_its_limits(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="shorten"):
        TOKENIZER.encode("word " * 100, limit=20)
    with pytest.raises(MediaError, match="characters"):
        TOKENIZER.encode("x" * 10_000_000, limit=20)
    with pytest.raises(ConfigError, match="special"):
        TOKENIZER.special("<nope>")
    with pytest.raises(ConfigError, match="room"):
        sn.Tokenizer.train(["a"], 100, SPECIALS)
    with pytest.raises(CheckpointError, match="cannot be read"):
        sn.Tokenizer.from_file(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"not a tokenizer\.json"):
        sn.Tokenizer.from_file(tmp_path / "bad.json")
    (tmp_path / "good.json").write_text(TOKENIZER.to_json(), encoding="utf-8")
    again = sn.Tokenizer.from_file(tmp_path / "good.json")
    assert again.encode("red 苹果 <say>") == TOKENIZER.encode("red 苹果 <say>") and again.special("<say>") == 2
    assert again.decode([1, *again.encode("red"), 3]) == "red"
