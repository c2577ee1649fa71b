"""Files, whatever they are called."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image as Pillow

import sensorium as sn
from sensorium.codecs.audio import load_audio
from sensorium.codecs.media import files_of, kind_of, medium
from sensorium.codecs.pictures import open_picture

from ..films import film

PICTURE = Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8))


def encoded(form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, form, **options)
    return buffer.getvalue()


def test_a_picture_with_another_ending(tmp_path: Path) -> None:
    """A PNG called .jpg, .mp4 or nothing: a picture."""
    for name in ("a.jpg", "a.mp4", "a"):
        (tmp_path / name).write_bytes(encoded("PNG"))
        assert medium(tmp_path / name).modality == "image"


@pytest.mark.parametrize("form, options, name", [
    ("PNG", {}, "PNG"), ("JPEG", {}, "JPEG"), ("WEBP", {}, "WEBP"), ("GIF", {}, "GIF"), ("BMP", {}, "BMP"), ("TIFF", {}, "TIFF"), ("PPM", {}, "PPM"),
    ("AVIF", {}, "AVIF"), ("TGA", {}, "TGA"), ("ICO", {}, "ICO"), ("JPEG2000", {}, "JPEG 2000"), ("JPEG2000", {"no_jp2": True}, "JPEG 2000"),
    ("MPO", {"save_all": True, "append_images": [PICTURE]}, "JPEG"), ("TIFF", {"save_all": True, "append_images": [PICTURE]}, "TIFF"),
    ("TIFF", {"big_tiff": True}, "TIFF"), ("DDS", {}, "DDS"),
])
def test_kinds_of_pictures(form: str, options: dict, name: str) -> None:
    """PNG, JPEG, MPO, WebP, GIF, BMP, TIFF, BigTIFF, PPM, AVIF, TGA, ICO, JPEG 2000, DDS without a name: told to be pictures by their first bytes."""
    kind = kind_of(encoded(form, **options))
    assert (kind.name, kind.modality) == (name, "image")


def test_tga_without_its_signature() -> None:
    """TGA of the first version, which has no mark: told by a header whose every field is one in use."""
    whole = encoded("TGA")
    assert kind_of(whole[:18] + bytes(8 * 12 * 3)).name == "TGA"
    assert kind_of(bytes(300)).name == ""


@pytest.mark.parametrize("data", [
    b"II*\0\x10\0\0\0CR\2\0", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", b"FUJIFILMCCD-RAW 0201", b"IIRO\x08\0\0\0", b"IIU\0\x08\0\0\0"])
def test_raw_files_of_cameras(data: bytes) -> None:
    """Raw files of Canon (CR2, CR3), Fujifilm (RAF), Olympus (ORF) and Panasonic (RW2): refused by name; develop them first."""
    assert str(kind_of(data + bytes(200))).startswith("a camera raw")
    with pytest.raises(sn.MediaError, match="camera's raw file; develop it first"):
        open_picture(data + bytes(200))


def test_heif_by_its_brands() -> None:
    """HEIF whose first brand is general (mif1): AVIF or HEIC by its other brands; of one that only lists mif1: HEIC."""
    avif = encoded("AVIF")
    size = int.from_bytes(avif[:4], "big")
    assert avif[8:12] == b"avif" and b"mif1" in avif[16:size]
    general = avif[:8] + b"mif1" + avif[12:16] + avif[16:size].replace(b"mif1", b"avif") + avif[size:]
    assert kind_of(general).name == "AVIF" and open_picture(general).size == PICTURE.size
    assert kind_of(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(80)).name == "HEIC"
    assert kind_of(b"\0\0\0\x14ftypmsf1\0\0\0\0msf1" + bytes(80)).name == "HEIC"


def test_what_is_no_plain_file(tmp_path: Path) -> None:
    """A pipe, a socket or a device: refused; nothing waits for it."""
    os.mkfifo(tmp_path / "a.png")
    film = sn.FramesCodec(sn.VisionCodec(16))
    for read in (kind_of, open_picture, lambda path: load_audio(sn.Audio(path)), lambda path: film.encode(sn.Video(path))):
        with pytest.raises(sn.MediaError, match="is no plain file; wanted"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP"])
def test_pictures_that_move(form: str) -> None:
    """PNG, GIF and WebP of several frames: a video; of one: a picture."""
    moving = kind_of(encoded(form, save_all=True, append_images=[PICTURE.rotate(180)], duration=40))
    assert (moving.modality, moving.moving, moving.sound) == ("video", True, False)
    assert kind_of(encoded(form)).modality == "image"


@pytest.mark.parametrize("name, form, pictures, sound", [
    ("a.mp4", "mp4", "mpeg4", "aac"), ("a.png", "mp4", "mpeg4", None), ("a.mov", "mov", "mpeg4", "pcm_s16le"), ("a.mkv", "matroska", "mpeg4", "aac"),
    ("a.webm", "webm", "libvpx", "libopus"), ("a.avi", "avi", "mpeg4", None), ("a.ts", "mpegts", "mpeg2video", "aac"), ("a.mpg", "mpeg",
    "mpeg1video", None),
    ("a.flv", "flv", "flv1", None), ("a.wmv", "asf", "wmv2", None), ("a", "matroska", "mpeg4", None),
])
def test_films(tmp_path: Path, name: str, form: str, pictures: str, sound: str | None) -> None:
    """MP4, MOV, MKV, WebM, AVI, MPEG-TS, MPEG-PS, FLV and WMV under any name: a film, of which it is known whether anything can be heard."""
    kind = kind_of(film(tmp_path / name, form, pictures, sound))
    assert (kind.modality, kind.sound, kind.moving) == ("video", sound is not None, False)
    assert isinstance(medium(tmp_path / name), sn.Video)


@pytest.mark.parametrize("name, form, sound", [
    ("a.mp4", "mp4", "aac"), ("a.webm", "webm", "libopus"), ("a.mkv", "matroska", "libopus"), ("a.ogg", "ogg", "libopus"), ("a.mov", "mov",
    "pcm_s16le"),
    ("a.aac", "adts", "aac"), ("a.mp3", "mp3", "libmp3lame"),
])
def test_containers_with_sound_alone(tmp_path: Path, name: str, form: str, sound: str) -> None:
    """MP4, WebM, MKV, MOV or OGG without pictures: a sound."""
    assert kind_of(film(tmp_path / name, form, None, sound)).modality == "audio"
    assert isinstance(medium(tmp_path / name), sn.Audio) and len(load_audio(medium(tmp_path / name))) > 5000


def test_a_sound_with_a_cover(tmp_path: Path) -> None:
    """M4A with a picture for a cover: a sound; a cover is no film (disposition attached_pic of FFmpeg)."""
    covered = film(tmp_path / "a.m4a", "mp4", None, "aac", cover=encoded("JPEG"))
    import av

    with av.open(str(covered)) as container:
        assert len(container.streams.video) == 1
    assert kind_of(covered).modality == "audio"


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "AIFF", "AU", "CAF", "W64", "RF64", "MP3"])
def test_kinds_of_sounds(form: str, tmp_path: Path) -> None:
    """WAV, FLAC, OGG, AIFF, AU, CAF, W64, RF64 and MP3 without an ending: sounds."""
    soundfile.write(tmp_path / "a", np.zeros(8000, np.float32), 16_000, format=form, **({"subtype": "MPEG_LAYER_III"} if form == "MP3" else {}))
    assert medium(tmp_path / "a").modality == "audio"


def test_texts(tmp_path: Path) -> None:
    """Texts in UTF-8, with or without its mark, or in UTF-16 with its mark: their text; in another encoding: refused by name."""
    for name, data in (("a.txt", "é\n".encode()), ("a.md", "\ufeffé\n".encode()), ("a", "é\n".encode("utf-16"))):
        (tmp_path / name).write_bytes(data)
        assert medium(tmp_path / name) == sn.Text("é\n")
    (tmp_path / "long.txt").write_text("汉" * 5000, encoding="utf-8")  # the first look ends inside a character
    assert medium(tmp_path / "long.txt") == sn.Text("汉" * 5000)
    (tmp_path / "old.txt").write_bytes("Müller".encode("latin-1"))
    with pytest.raises(sn.MediaError, match="old.txt is not UTF-8 at byte 1"):
        medium(tmp_path / "old.txt")


def test_texts_that_begin_like_media() -> None:
    """Texts that begin with "GIF", "BM", "P5", "ID3", "MAC" or have "free" at byte 4: texts."""
    for text in ("GIF89a is a format", "BMW makes cars", "P5 is a piano", "ID3 is a tag", "MAC OS", "The free lunch", "RIFF-RAFF and WAVE"):
        assert kind_of(text.encode()).modality == "text"
    assert kind_of(b"P3 # ascii\n2 1\n255\n1 2 3 4 5 6\n").name == "PPM"


@pytest.mark.parametrize("data, says", [(b"%PDF-1.7\n", "a PDF"), (b"PK\x03\x04\x14\0", "a ZIP"), (b"<svg xmlns='x'/>", "an SVG"), (b"", "empty"),
                                        (bytes(range(9)) * 40, "of no kind that is known")])
def test_what_is_not_read(tmp_path: Path, data: bytes, says: str) -> None:
    """PDF, ZIP and what is made of it, SVG, nothing at all: refused, by what it is."""
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(sn.MediaError, match=f"a is {says}; wanted a picture"):
        medium(tmp_path / "a")


def test_a_folder(tmp_path: Path) -> None:
    """A folder that is walked: every picture by its content; what is passed over is listed with the reason."""
    moving = encoded("GIF", save_all=True, append_images=[PICTURE.rotate(9)])
    for name, data in (("a.jpg", encoded("PNG")), ("b", encoded("AVIF")), ("sub/c.gif", moving), ("d.png", b"no picture"), ("e.txt", b"text"),
                       ("f.pdf", b"%PDF-1.7"), (".hidden/g.png", encoded("PNG")), ("h.png", b"")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    film(tmp_path / "i.png", "mp4", "mpeg4", None)
    (tmp_path / "loop").symlink_to(tmp_path)
    listing = files_of(tmp_path, "image")
    assert [str(path.relative_to(tmp_path)) for path in listing.found] == ["a.jpg", "b", "d.png", "h.png", "sub/c.gif"]
    assert {path.name: reason for path, reason in listing.passed} == {
        "e.txt": "a text", "f.pdf": "a PDF", ".hidden": "a hidden folder", "i.png": "an MP4 film", "loop": "a link to a folder"}
